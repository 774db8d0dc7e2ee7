// Package daemon asks the IKE daemon of this host: whether it is negotiating
// with a peer, whether SAs are up, and to set the tunnel up while the caller
// listens. A daemon is asked and never configured.
//
// The daemons are strongSwan, by its vici socket, and libreswan, by its whack
// program. Only those in the network namespace of the caller are found. Every
// question is bounded in time and in the size of the answer, and ends with its
// context.
package daemon
