package agent

import (
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// Subscriber is told what happens, as it happens. Its methods are called from
// many goroutines and must not block.
type Subscriber interface {
	Observe(peer string, r evidence.EchoResult)
	ObserveIKE(peer string, r evidence.IKEResult)
	ObserveTCP(peer string, r evidence.TCPResult)
	ObservePathMTU(peer string, m evidence.PathMTU)
	ObserveLadder(peer string, l evidence.Ladder)
	ObserveAuth(peer string, a evidence.IKEAuth)
	// AddTunnel and AddCapture report what passed since the last call.
	AddTunnel(peer string, in, out evidence.Traffic)
	AddCapture(peer string, delta evidence.Capture)
	Publish(r *diagnosis.Report)
}

// Nobody is the Subscriber of a run that nobody watches.
type Nobody struct{}

func (Nobody) Observe(string, evidence.EchoResult)                  {}
func (Nobody) ObserveIKE(string, evidence.IKEResult)                {}
func (Nobody) ObserveTCP(string, evidence.TCPResult)                {}
func (Nobody) ObservePathMTU(string, evidence.PathMTU)              {}
func (Nobody) ObserveLadder(string, evidence.Ladder)                {}
func (Nobody) ObserveAuth(string, evidence.IKEAuth)                 {}
func (Nobody) AddTunnel(string, evidence.Traffic, evidence.Traffic) {}
func (Nobody) AddCapture(string, evidence.Capture)                  {}
func (Nobody) Publish(*diagnosis.Report)                            {}
