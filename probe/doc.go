// Package probe holds the active probers: what is sent, and what came back.
//
// A prober's result is a value of package evidence: an answer, a refusal,
// silence, or the reason for which this host could not send. A Go error means
// that a prober cannot look at all, such as for a missing permission, and
// names what would permit it. Nothing here decides what a result means.
//
// The probers are [Echo] (ICMP echo, by pro-bing), [ConnectTCP], the IKE
// heartbeat and the inner hop; package pmtu has the path MTU search. Each owns
// its sockets and goroutines and has released them when it returns. What they
// send is bounded by their configuration alone: no answer makes a prober send
// more.
package probe
