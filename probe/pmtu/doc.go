// Package pmtu finds the largest IP packet that a path carries, by probing
// (RFC 8899), whether or not routers say that a packet is too big.
//
// [Search] is one whole search; [Confirm] asks whether its result still holds,
// [Sweep] looks for holes, and [Watch] does all three for ever. What a search
// sends is bounded, whatever comes back; results are values of package
// evidence, and nothing here decides what they mean.
//
// The order of a search: the largest packet that the link takes, alone. If it
// is answered, two smaller ones, and that is all. If a hop says "too big" and
// what would fit, that size and the next: three packets. Only otherwise a small
// packet tells whether anything is answered at all, and then a ladder of common
// sizes leads to a bracket, and the bracket to a byte.
//
// RFC 8899 section 5.1.1 wants at least a second, and better 15, between
// probes, for the sake of a sender that probes for ever beside its data. A
// search waits less and repeats itself before it believes in a loss, within a
// budget: what takes a second and 60 packets once in ten minutes harms nobody.
//
// A "too big" that the network sends to a search is learnt by the kernel too,
// as with any packet, and from then on holds for all that this host sends to
// that address.
package pmtu
