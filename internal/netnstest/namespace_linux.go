package netnstest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// NS is a network namespace beside that of the test. A thread of its own holds
// it until the test ends.
type NS struct {
	t    *testing.T
	tid  int
	work chan func()
}

// New makes a namespace with its loopback up. IPv6 addresses that it is given
// are usable at once.
func New(t *testing.T) *NS {
	t.Helper()
	need(t)
	ns := &NS{t: t, work: make(chan func())}
	ready, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		ns.tid = unix.Gettid()
		ready <- err
		if err != nil {
			return
		}
		for f := range ns.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		cannot(t, err)
	}
	t.Cleanup(func() { close(ns.work); <-ended })
	ns.Sysctl("ipv6/conf/default/accept_dad", "0")
	ns.IP("link set lo up")
	return ns
}

// Tid returns the thread by which ip(8) knows the namespace.
func (ns *NS) Tid() int { return ns.tid }

// Do runs f in the namespace: what f opens belongs to it for good. f must not
// end the test.
func (ns *NS) Do(f func()) {
	done := make(chan struct{})
	ns.work <- func() { defer close(done); f() }
	<-done
}

// Run runs a command in the namespace.
func (ns *NS) Run(command string) (err error) {
	ns.Do(func() { err = Run(command) })
	return err
}

// IP runs ip(8) commands in the namespace.
func (ns *NS) IP(commands ...string) {
	ns.t.Helper()
	for _, c := range commands {
		if err := ns.Run("ip " + c); err != nil {
			ns.t.Fatal(err)
		}
	}
}

// Sysctl sets a value under /proc/sys/net of the namespace.
func (ns *NS) Sysctl(name, value string) {
	ns.t.Helper()
	var err error
	ns.Do(func() { err = sysctl(name, value) })
	if err != nil {
		ns.t.Fatal(err)
	}
}
