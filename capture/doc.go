// Package capture counts what passes between this host and its peers on the
// underlay: ESP, AH, IKE, their fragments, and ICMP errors about them.
//
// An [Observer] counts frames and knows nothing of where they come from. [Live]
// feeds it from a packet socket with a filter in the kernel, [ReadPcap] from a
// recorded capture; both take the same way through the decoder.
//
// Direction is by addresses: from a peer is in, to a peer is out. A frame that
// passes the interface twice, once each way (the loopback interface, a
// one-armed router), counts once.
//
// What was counted was there. That something was not there is only said for a
// time that was watched without a break, without a frame dropped, and on a host
// whose kernel does not hide ESP from packet sockets: [Counts.Since] carries
// all three into the evidence.
//
// What it does not do: reassemble fragments, look into TCP (RFC 9329), PPPoE or
// other tunnels, or tell two ESP SAs apart.
package capture
