package bpfcount

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// filterPrefix begins the names of our filters: "vpnprobe:" and their owner,
// then ":q" if it made the qdisc too.
const filterPrefix = "vpnprobe:"

// owner is the mark of one Counter on its filters, which outlive it if it
// crashes. It holds an abstract socket of the same name while it lives. Such
// names belong to a network namespace, as interfaces do.
type owner struct {
	name string
	fd   int
}

func newOwner() (*owner, error) {
	var b [8]byte
	rand.Read(b[:]) // never fails
	name := filterPrefix + hex.EncodeToString(b[:])
	fd, err := holdName(name)
	if err != nil {
		return nil, err
	}
	return &owner{name, fd}, nil
}

func (o *owner) close() { unix.Close(o.fd) }

func holdName(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// orphaned reports whether the owner of a filter lives no more.
func orphaned(name string) bool {
	name = strings.TrimSuffix(name, ":q")
	fd, err := holdName(name)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// clsact is our two filters of an interface.
type clsact struct {
	ifindex int
	made    bool // the qdisc is ours
	filters []filter
}

// attachClsact adds a filter to each direction of an interface, and the clsact
// qdisc if it is not there. What a run that crashed has left is removed.
func attachClsact(nl *routeSocket, ifindex int, o *owner, in, out *ebpf.Program) (_ *clsact, err error) {
	c := &clsact{ifindex: ifindex}
	if err := nl.removeOrphans(ifindex); err != nil {
		return nil, err
	}
	switch err := nl.addClsact(ifindex); {
	case err == nil:
		c.made = true
	case errors.Is(err, unix.EEXIST):
		// The ingress qdisc has the same place, and would take a filter for
		// what goes out as one for what comes in.
		kind, err := nl.ingressKind(ifindex)
		if err != nil {
			return nil, fmt.Errorf("look up the clsact qdisc: %w", err)
		}
		if kind != "clsact" {
			return nil, fmt.Errorf("%w: it has no tcx, and the %s qdisc is in the place of clsact", ErrUnsupported, kind)
		}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("%w: it has neither tcx nor the clsact qdisc: load the module sch_ingress: %w", ErrUnsupported, err)
	default:
		return nil, fmt.Errorf("add the clsact qdisc: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove(nl))
		}
	}()
	name := o.name
	if c.made {
		name += ":q"
	}
	for _, h := range []struct {
		parent uint32
		prog   *ebpf.Program
	}{{parentIngress, in}, {parentEgress, out}} {
		present, err := nl.filters(ifindex, h.parent)
		if err != nil {
			return nil, fmt.Errorf("list the tc filters: %w", err)
		}
		f := filter{parent: h.parent, priority: freePriority(present), handle: 1, name: name}
		switch err := nl.addFilter(ifindex, f, h.prog.FD()); {
		case errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("%w: it has no cls_bpf: %w", ErrUnsupported, err)
		case err != nil:
			return nil, fmt.Errorf("add a tc filter: %w", err)
		}
		c.filters = append(c.filters, f)
	}
	return c, nil
}

// freePriority returns the first priority that is not in use: one filter kind
// only may have a priority.
func freePriority(present []filter) uint16 {
	for p := uint16(1); ; p++ {
		used := false
		for _, f := range present {
			used = used || f.priority == p
		}
		if !used {
			return p
		}
	}
}

func (c *clsact) detach() error {
	nl, err := dialRoute()
	if err != nil {
		return err
	}
	defer nl.close()
	return c.remove(nl)
}

// remove removes our filters, and the qdisc if we made it and nobody else uses
// it. What is gone already is no error.
func (c *clsact) remove(nl *routeSocket) error {
	var errs []error
	for _, f := range c.filters {
		if err := nl.removeFilter(c.ifindex, f); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove our tc filter: %w", err))
		}
	}
	if c.made {
		errs = append(errs, nl.removeUnused(c.ifindex))
	}
	return errors.Join(errs...)
}

// gone reports whether an error means that there is no such filter, qdisc or
// interface any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

// removeUnused removes the clsact qdisc of an interface if it has no filters.
func (nl *routeSocket) removeUnused(ifindex int) error {
	for _, parent := range []uint32{parentIngress, parentEgress} {
		present, err := nl.filters(ifindex, parent)
		if err != nil && !gone(err) {
			return fmt.Errorf("list the tc filters: %w", err)
		}
		if len(present) > 0 {
			return nil
		}
	}
	if err := nl.removeClsact(ifindex); err != nil && !gone(err) {
		return fmt.Errorf("remove our clsact qdisc: %w", err)
	}
	return nil
}

// removeOrphans removes the filters that a run of ours has left which did not
// end in good order, and its qdisc.
func (nl *routeSocket) removeOrphans(ifindex int) error {
	made := false
	for _, parent := range []uint32{parentIngress, parentEgress} {
		present, err := nl.filters(ifindex, parent)
		if gone(err) {
			return nil // no qdisc that could have any
		}
		if err != nil {
			return fmt.Errorf("list the tc filters: %w", err)
		}
		for _, f := range present {
			if !strings.HasPrefix(f.name, filterPrefix) || !orphaned(f.name) {
				continue
			}
			if err := nl.removeFilter(ifindex, f); err != nil && !gone(err) {
				return fmt.Errorf("remove a tc filter that an earlier run has left: %w", err)
			}
			made = made || strings.HasSuffix(f.name, ":q")
		}
	}
	if made {
		return nl.removeUnused(ifindex)
	}
	return nil
}
