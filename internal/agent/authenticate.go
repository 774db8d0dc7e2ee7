package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
	"vpnprobe/probe/ikeauth"
)

// authTimeout bounds one negotiation.
const authTimeout = 15 * time.Second

// authenticate negotiates with the peer for real, in the order that does the
// least harm: nothing while an SA with the peer exists or might exist, else the
// local daemon if it has the connection, and ourselves only where no daemon
// does, or to learn why the daemon's attempt was refused. addrs are all of the
// peer's addresses, of which the first is asked.
func (p *peer) authenticate(ctx context.Context, addrs []netip.Addr, psk []byte) evidence.IKEAuth {
	a := addrs[0]
	if who := p.env.awaitQuiet(ctx, a); who != "" {
		return evidence.IKEAuth{Skipped: who}
	}
	if why := p.associated(ctx, addrs, false); why != "" {
		return evidence.IKEAuth{Skipped: why}
	}
	slot, skipped := p.awaitSlot(ctx, a)
	if slot == nil {
		return evidence.IKEAuth{Skipped: skipped}
	}
	asked := p.ask(ctx, a)
	if asked != nil && !refused(asked) {
		if asked.Stage == evidence.StageComplete {
			slot.Release()
		}
		return *asked
	}
	if why := p.associated(ctx, addrs, true); why != "" {
		if asked == nil {
			asked = &evidence.IKEAuth{Skipped: why}
		}
		return *asked
	}
	own := p.negotiate(ctx, a, psk)
	if ended(own) {
		slot.Release()
	}
	if asked == nil || explains(own, *asked) {
		return own
	}
	return *asked
}

// associated says why an SA with the peer exists on this host, or may exist;
// "" when there is none. One without a child SA counts only when strict.
func (p *peer) associated(ctx context.Context, addrs []netip.Addr, strict bool) string {
	t := p.env.Host.Tunnel(addrs, netip.Addr{})
	switch {
	case t.Readable != evidence.Yes:
		return "whether an SA with the peer exists cannot be seen: " + t.CannotLook
	case len(t.SAs) > 0:
		return "an SA with the peer exists here, so both ends are authenticated already"
	}
	daemons, err := p.env.daemons(ctx)
	if err != nil {
		return "whether an SA with the peer exists cannot be seen: " + err.Error()
	}
	for _, d := range daemons {
		for _, a := range addrs {
			switch s, err := d.Status(ctx, a); {
			case err != nil:
				return "whether an SA with the peer exists cannot be seen: " + err.Error()
			case s.Installed, strict && s.Established:
				return "an SA with the peer exists in " + d.Name() + ", so both ends are authenticated already"
			case s.Negotiating:
				return d.Name() + " on this host is negotiating with the peer"
			}
		}
	}
	return ""
}

// awaitSlot waits until something that may leave a half-open SA may be sent
// to the peer, or says why not.
func (p *peer) awaitSlot(ctx context.Context, a netip.Addr) (*budget.Reservation, string) {
	source, err := p.sourceTo(a)
	if err != nil {
		return nil, err.Error()
	}
	if p.env.Budget == nil {
		return nil, p.env.BudgetErr
	}
	for range 2 {
		slot, err := p.env.Budget.Reserve(budget.Key{Source: source, Peer: a, Kind: budget.HalfOpen}, budget.HoldHalfOpen)
		spent := (*budget.SpentError)(nil)
		switch {
		case err == nil:
			return slot, ""
		case !errors.As(err, &spent):
			return nil, err.Error()
		}
		wait := time.Until(spent.Until) + time.Second
		p.log.Info("waiting for the budget of one negotiation a minute", "wait", wait.Round(time.Second))
		if wait > 2*budget.HoldHalfOpen || !sleep(ctx, wait) {
			break
		}
	}
	return nil, "another run negotiates with the peer"
}

// refused reports whether the daemon's attempt was refused: then our own may
// tell more. One that the peer did not answer may have left something there.
func refused(asked *evidence.IKEAuth) bool {
	return asked.CannotLook == "" && asked.Skipped == "" &&
		(asked.Stage == evidence.StageAuth || asked.Stage == evidence.StageChild) && (asked.Notify != "" || asked.Authenticated == evidence.No)
}

// ended reports whether our own negotiation left nothing at the peer.
func ended(own evidence.IKEAuth) bool {
	return own.Deleted == evidence.Yes || !own.Time.Known() || own.Deleted == evidence.Unknown && own.Notify != ""
}

// explains reports whether our own negotiation says more of a refusal that
// the daemon met too.
func explains(own, asked evidence.IKEAuth) bool {
	if !own.Time.Known() {
		return false
	}
	return own.RemoteIDOther == evidence.Yes || own.Stage == asked.Stage && own.Stage == evidence.StageChild
}

// ask has the local daemon that has the connection negotiate; nil when none
// has it, or has a way to.
func (p *peer) ask(ctx context.Context, a netip.Addr) *evidence.IKEAuth {
	daemons, err := p.env.daemons(ctx)
	if err != nil {
		return &evidence.IKEAuth{CannotLook: err.Error()}
	}
	for _, d := range daemons {
		if s, err := d.Status(ctx, a); err != nil || !s.Configured {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, authTimeout)
		defer cancel()
		began := time.Now()
		r, err := d.Initiate(ctx, a, len(p.cfg.ESP.Proposals) > 0)
		if errors.Is(err, daemon.ErrUnable) {
			continue
		}
		if err != nil {
			return &evidence.IKEAuth{CannotLook: err.Error()}
		}
		if !r.Time.Known() && r.Skipped == "" {
			r.Time = evidence.Some(began)
		}
		return &r
	}
	return nil
}

// negotiate negotiates ourselves.
func (p *peer) negotiate(ctx context.Context, a netip.Addr, psk []byte) evidence.IKEAuth {
	if p.cfg.IKE.Version == 1 {
		return evidence.IKEAuth{Skipped: "vpnprobe itself authenticates in IKEv2 only, and no local daemon has this connection"}
	}
	if earlier, ok := p.reserveAuth(a); !ok {
		return earlier
	}
	r := ikeauth.Run(ctx, ikeauth.Config{
		Target: a, Source: p.cfg.Source, Ports: p.env.IKEPorts,
		Proposals: p.state.declared.IKEProposals, ESPProposals: p.state.declared.ESPProposals, ESPMode: p.cfg.ESP.Mode,
		LocalSubnets: p.cfg.LocalSubnets, RemoteSubnets: p.cfg.RemoteSubnets,
		LocalID: p.cfg.IKE.LocalID, RemoteID: p.cfg.IKE.RemoteID, PSK: psk, Timeout: authTimeout,
	})
	p.keep(a, r)
	return r
}

// kept is what an attempt found, with what it was made of: a result says
// nothing about other declarations, or about another key.
type kept struct {
	Of   string
	Auth evidence.IKEAuth
}

// attempt describes what a negotiation is made of, but for the key, of which
// only the file's state is told.
func (p *peer) attempt() string {
	file := ""
	if info, err := os.Stat(p.cfg.IKE.PSKFile); err == nil {
		file = fmt.Sprint(info.ModTime().UnixNano(), info.Size())
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			file += fmt.Sprint(" ", sys.Ino)
		}
	}
	return fmt.Sprint(p.cfg.IKE, p.cfg.ESP, p.cfg.LocalSubnets, p.cfg.RemoteSubnets, p.cfg.Source, file)
}

// reserveAuth takes the slot of our own negotiations for good. Else it returns
// what an earlier one of the same kind found, or why there is none.
func (p *peer) reserveAuth(a netip.Addr) (earlier evidence.IKEAuth, ok bool) {
	source, err := p.sourceTo(a)
	if err != nil {
		return evidence.IKEAuth{Skipped: err.Error()}, false
	}
	key := budget.Key{Source: source, Peer: a, Kind: budget.Authenticated}
	_, err = p.env.Budget.Reserve(key, budget.HoldAuthenticated)
	spent := (*budget.SpentError)(nil)
	switch {
	case err == nil:
		return earlier, true
	case !errors.As(err, &spent):
		return evidence.IKEAuth{Skipped: err.Error()}, false
	}
	var last kept
	if saved, err := p.env.Budget.Load(key, &last); err == nil && time.Since(saved) < budget.HoldAuthenticated && last.Auth.Time.Known() && last.Of == p.attempt() {
		last.Auth.Reused = true
		return last.Auth, false
	}
	return evidence.IKEAuth{Skipped: fmt.Sprintf("the last attempt is too recent: one every %v, so again in %v", budget.HoldAuthenticated, time.Until(spent.Until).Round(time.Second))}, false
}

// keep keeps what was found for the runs that may not look again yet.
func (p *peer) keep(a netip.Addr, r evidence.IKEAuth) {
	if r.CannotLook != "" {
		return
	}
	source, err := p.sourceTo(a)
	if err == nil {
		err = p.env.Budget.Save(budget.Key{Source: source, Peer: a, Kind: budget.Authenticated}, kept{p.attempt(), r})
	}
	if err != nil {
		p.log.Warn("cannot keep the result for the next run", "err", err)
	}
}

// maxPSK bounds a pre-shared key, in bytes.
const maxPSK = 4096

// ReadPSK reads a pre-shared key from a file that only its owner may read. A
// newline at the end is not part of the key. The error never holds a part of
// the file.
func ReadPSK(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read pre-shared key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read pre-shared key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read pre-shared key: %s is not a regular file: let ike.psk_file name one that holds the key", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("read pre-shared key: %s has mode %#o: others may read it; chmod 600 %s", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPSK+1))
	if err != nil {
		return nil, fmt.Errorf("read pre-shared key %s: %w", path, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return nil, fmt.Errorf("read pre-shared key: %s is empty: write the key of ike.psk_file into it, in one line", path)
	case len(b) > maxPSK:
		return nil, fmt.Errorf("read pre-shared key: %s is longer than %d bytes", path, maxPSK)
	}
	return b, nil
}
