package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

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
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own, which ends afterwards, so that what
// f changes of it does not matter.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// command runs a command in the namespace and returns what it printed. It
// does not outlive this process.
func (n *namespace) command(ctx context.Context, environment []string, words ...string) (string, error) {
	var out []byte
	err := n.do(func() error {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Env = append(os.Environ(), environment...)
		// About this thread, which waits for the command.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		var err error
		out, err = cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return err
	})
	return string(out), err
}

// configure runs commands, each given as words, in the namespace.
func (n *namespace) configure(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		_, err := n.command(ctx, nil, strings.Fields(c)...)
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s: %w: install iproute2 and nftables", c, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// sysctl sets one of net's.
func (n *namespace) sysctl(name, value string) error {
	return n.do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}
