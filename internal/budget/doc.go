// Package budget limits how often this host asks a peer for something that may
// leave a half-open SA there. A gateway may ignore every setup from an address
// with a handful of those, the IKE daemon's included, so the limit is kept
// across processes and restarts: in a directory, under a lock, and written
// before the request leaves. A process that dies while its request is out has
// spent it.
//
// Beside the limit lie the last answers, so that whoever is refused can be
// shown what the last request found.
//
// Whatever keeps the budget from being read or written is an error, and an
// error is not a permission: a caller leaves such a request out.
package budget
