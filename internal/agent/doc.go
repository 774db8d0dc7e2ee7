// Package agent runs the probers: it turns a configuration into tasks, owns
// every goroutine, keeps what the probers saw in one window per peer, and
// publishes a diagnosis of each peer to its [Subscriber].
//
// The daemon ([Agent.Run]) and the on-demand run ([Probe]) are the same tasks
// at a different [pace].
package agent
