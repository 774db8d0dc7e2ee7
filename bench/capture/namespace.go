package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name. The kernel removes it and
// its devices when its last user has closed it.
type namespace struct{ file *os.File }

func newNamespace() (*namespace, error) {
	var n namespace
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &n, nil
}

func (n *namespace) close() { n.file.Close() }

// path names the namespace for ip(8).
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// do calls f on a thread that is in the namespace.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread to the namespace.
func (n *namespace) enter() error {
	return os.NewSyscallError("setns", unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET))
}

// onThread calls f on a thread of its own, which ends afterwards, so that what
// f changes of it does not matter.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// ip runs ip(8) with the words of several commands in the namespace.
func (n *namespace) ip(commands ...string) error {
	return n.do(func() error {
		for _, c := range commands {
			out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				return fmt.Errorf("ip %s: %w: install iproute2", c, err)
			}
			if err != nil {
				return fmt.Errorf("ip %s: %w: %s", c, err, strings.TrimSpace(string(out)))
			}
		}
		return nil
	})
}

// sysctl sets one of net's.
func (n *namespace) sysctl(name, value string) error {
	return n.do(func() error {
		return os.WriteFile("/proc/sys/net/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	})
}
