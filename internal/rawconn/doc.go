// Package rawconn opens the Linux sockets that the active probers need and
// package net does not give: UDP and ICMP echo sockets with the kernel's error
// queue, per-socket exemption from IPsec, a TTL of choice, and packets that no
// cache of path MTUs and no fragmentation gets in the way of.
//
// A socket is read by [Conn.Receive] (or [Echo.Receive]), which returns what
// came next: a datagram, or an ICMP error about a packet of ours with the
// address that sent it. Both wake through the runtime's poller; no goroutine
// belongs to this package. Sockets are not bound to UDP port 500 or 4500,
// which belong to the IKE daemon.
package rawconn
