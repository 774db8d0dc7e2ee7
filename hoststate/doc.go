// Package hoststate reads what this host believes about the way to a peer: the
// route, the link, the kernel's IPsec state, the IKE daemon's sockets, and what
// the firewall does to the size of TCP segments. It only reads. It sends nothing
// on the network and changes nothing. The one program that it runs is
// iptables-save, in its several forms, since the kernel does not explain the
// rules of iptables.
//
// A [Reader] keeps no state: each call opens its source, asks one bounded
// question, and closes it. So each source works or fails alone, a permission
// granted later is noticed, and nothing has to be closed. All calls answer for
// the network namespace of the calling thread.
//
// The kernel hands out the keys of an SA with the SA. They are never decoded:
// of an algorithm only its name and the lengths before the key are. The buffer
// they came in is overwritten before a call returns.
package hoststate
