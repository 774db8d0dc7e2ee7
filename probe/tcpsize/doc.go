// Package tcpsize opens one TCP connection to a service behind the tunnel, as
// its users do, and tells what sizes pass: the maximum segment size (MSS) that
// comes from the target, after any clamp on the way, and whether segments of
// full size arrive, there and here. That decides "ping passes, but ssh
// freezes", which no packet of a probe's own can.
//
// What it says to the target depends on the service. To TLS it sends a
// ClientHello padded to more than one segment (RFC 7685), to SSH the version
// and a key exchange offer with long lists of names (RFC 4253), to HTTP a GET
// with a long field. It goes no further: nothing is authenticated, and no key
// agreed on. To a service that it does not know it sends nothing.
//
// What it finds lost it has seen to be lost: a large segment that was repeated
// in vain while the small one behind it came through, or an answer that has a
// gap, or ends within a part. That a server is silent, or slow, says nothing.
//
// Known limits: the answer of a TLS 1.3 server is encrypted, so that its end is
// known by a pause only. A server may log the broken-off handshake.
package tcpsize
