// Package integration holds the end-to-end tests of the agent: real gateways
// with a real tunnel between them, one broken thing each, and the agent's
// word on it. Package lab provides the network, and says what it needs;
// packages.sh installs that.
//
//	go test -count=1 ./integration                            # all of them
//	go test -count=1 ./integration -run 'TestWire/leak'       # those that share one network
//	VPNPROBE_LAB_CASE=esp go test -count=1 ./integration -run TestDiagnosis # those of a name
//	VPNPROBE_LAB_KEEP=/tmp/lab go test -count=1 ./integration # keep reports, logs and captures
//
// Every test is parallel: the labs of one alone would leave the machine idle.
// Cases that mend what they break share a lab, for a boot and a network take
// as long as a look.
//
// VPNPROBE_AGENT names an agent binary to test instead of building one.
// VPNPROBE_LAB_REQUIRED=1 makes a machine that cannot boot the lab a failure,
// where it is a skip with its reason otherwise.
package integration
