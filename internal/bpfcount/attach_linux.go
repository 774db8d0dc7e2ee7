package bpfcount

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Options say how to attach to an interface.
type Options struct {
	// XDP counts what comes in before GRO and ESP offload, which hide inbound
	// ESP from tc. Only the driver's own XDP is used: the generic one runs
	// after GRO. Attaching it may reset the link of some network cards.
	XDP bool
}

// The hooks, as [Counter.Attach] names them.
const (
	HookTCX       = "tcx"
	HookClsact    = "clsact"
	HookXDPTCX    = "xdp+tcx"    // XDP counts what comes in
	HookXDPClsact = "xdp+clsact" // likewise
)

// attachment is what is attached to one interface.
type attachment struct {
	links  []link.Link
	clsact *clsact // instead of tcx
}

// Attach begins to count on an interface and tells by which hook. The programs
// run before others at the same hook of tcx, and after those at clsact, which
// may hide packets from them. An interface that is attached already is an
// error. The error wraps ErrUnsupported when the kernel has neither tcx nor
// clsact, or the driver has no XDP; os.ErrPermission; or unix.ENODEV when the
// interface is gone.
func (c *Counter) Attach(ifindex int, o Options) (hook string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return "", os.ErrClosed
	case c.attached[ifindex] != nil:
		return "", fmt.Errorf("count on interface %d: counting there already", ifindex)
	}
	a := &attachment{}
	hook, err = c.attach(a, ifindex, o)
	if err != nil {
		return "", fmt.Errorf("count on interface %d: %w", ifindex, errors.Join(explain(err), a.detach()))
	}
	c.attached[ifindex] = a
	return hook, nil
}

func (c *Counter) attach(a *attachment, ifindex int, o Options) (string, error) {
	nl, err := dialRoute()
	if err != nil {
		return "", err
	}
	defer nl.close()
	hardware, err := nl.hardware(ifindex)
	if err != nil {
		return "", err
	}
	bare := hardware != unix.ARPHRD_ETHER && hardware != unix.ARPHRD_LOOPBACK
	in, err := c.program(variant{bare: bare, count: !o.XDP, frames: true})
	if err != nil {
		return "", err
	}
	out, err := c.program(variant{bare: bare, out: true, count: true, frames: true})
	if err != nil {
		return "", err
	}
	if o.XDP {
		if bare {
			return "", fmt.Errorf("XDP: %w: the interface has no Ethernet headers", ErrUnsupported)
		}
		if err := c.attachXDP(a, ifindex); err != nil {
			return "", err
		}
	}
	err = ebpf.ErrNotSupported
	if !c.noTCX {
		err = a.attachTCX(ifindex, in, out)
	}
	if err == nil {
		if o.XDP {
			return HookXDPTCX, nil
		}
		return HookTCX, nil
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return "", err
	}
	if c.owner == nil {
		if c.owner, err = newOwner(); err != nil {
			return "", err
		}
	}
	if a.clsact, err = attachClsact(nl, ifindex, c.owner, in, out); err != nil {
		return "", err
	}
	if o.XDP {
		return HookXDPClsact, nil
	}
	return HookClsact, nil
}

func (a *attachment) attachTCX(ifindex int, in, out *ebpf.Program) error {
	for _, h := range []struct {
		hook ebpf.AttachType
		prog *ebpf.Program
	}{{ebpf.AttachTCXIngress, in}, {ebpf.AttachTCXEgress, out}} {
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: h.prog, Attach: h.hook, Anchor: link.Head()})
		if err != nil {
			return err
		}
		a.links = append(a.links, l)
	}
	return nil
}

func (c *Counter) attachXDP(a *attachment, ifindex int) error {
	prog, err := c.program(variant{xdp: true, count: true})
	if err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	switch {
	case err == nil:
		a.links = append(a.links, l)
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("XDP: %w: the driver, or its present settings, cannot: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("XDP: another program is there: %w", err)
	}
	return fmt.Errorf("XDP: %w", err)
}

// Detach ends counting on an interface and leaves it as it was before. An
// interface that is not attached, or is gone, is no error. What was counted
// stays in Samples until it is the least recently used.
func (c *Counter) Detach(ifindex int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attached[ifindex]
	if a == nil {
		return nil
	}
	delete(c.attached, ifindex)
	if err := a.detach(); err != nil {
		return fmt.Errorf("end counting on interface %d: %w", ifindex, err)
	}
	return nil
}

func (a *attachment) detach() error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	if a.clsact != nil {
		errs = append(errs, a.clsact.detach())
	}
	return errors.Join(errs...)
}
