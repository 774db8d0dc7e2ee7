// Package hoststate reads what this host believes about the way to a peer: the
// route, the link, the kernel's IPsec state, the IKE daemon's sockets. It only
// reads. It sends nothing on the network and changes nothing.
//
// A [Reader] keeps no state: each call opens its source, asks one bounded
// question, and closes it. So each source works or fails alone, a permission
// granted later is noticed, and nothing has to be closed. All calls answer for
// the network namespace of the calling thread.
//
// The kernel hands out the keys of an SA with the SA. They are never decoded,
// and the buffer they came in is overwritten before a call returns.
package hoststate
