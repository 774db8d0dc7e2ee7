// Package evidence is the vocabulary that the rest of vpnprobe speaks: what
// was observed about one peer, when, and what was not observed.
//
// Probers, the capture and the host readers return the small result types of
// this package; [Snapshot] joins them per peer, and package diagnosis decides
// on the snapshot alone. Nothing here opens a socket, reads a clock or judges.
//
// Every value that can be missing says so: a [Fact] is unknown until it was
// seen to be true or false, an [Opt] is null until it was measured. The zero
// value of every type in this package means "not observed".
package evidence
