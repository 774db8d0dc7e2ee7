// Package capture watches what passes between this host and its peers on the
// underlay: ESP, AH, IKE, their fragments, ICMP errors about them, and packets
// in clear that belong into the tunnel.
//
// An [Observer] counts frames and knows nothing of where they come from. [Live]
// feeds it from packet sockets with a filter in the kernel, or from counters in
// the kernel and the few frames that they pick out; a [PcapReader] from a
// recorded capture. All take the same way through the decoder, and all end as
// [Counts]: readings that only grow, two of which make a window.
//
// Direction is by addresses: from a peer is in, to a peer is out. A frame that
// is shown again on another way (the loopback interface, a one-armed router, a
// bond and its member) counts once.
//
// What was counted was there. That something was not there is only said for a
// time that was watched without a break, without a frame dropped, and on a host
// whose kernel does not hide ESP from the capture: [Counts.Since] carries all
// three into the evidence.
//
// All memory is bounded, whatever the frames are: forged ones push out others
// like them, but not the flows in use, and never the totals.
//
// What it does not do: reassemble fragments, or look into TCP (RFC 9329), PPPoE
// or other tunnels.
package capture
