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

const (
	// authEvery is the least time between two negotiations of our own.
	authEvery = 10 * time.Minute
	// authTimeout bounds one negotiation.
	authTimeout = 15 * time.Second
)

// authenticate negotiates with the peer for real, in the order that does the
// least harm: nothing while an SA with the peer exists, else the local daemon
// if it has the connection, and ourselves only where no daemon does, or to
// learn why the daemon's attempt was refused.
func (p *peer) authenticate(ctx context.Context, a netip.Addr, psk []byte) evidence.IKEAuth {
	if p.holdsSA(a) {
		return evidence.IKEAuth{Skipped: "an SA with the peer exists here, so both ends are authenticated already"}
	}
	if who := p.env.awaitQuiet(ctx, a); who != "" {
		return evidence.IKEAuth{Skipped: who + " on this host is negotiating with the peer"}
	}
	var asked *evidence.IKEAuth
	for _, d := range p.env.daemons(ctx) {
		s, err := d.Status(ctx, a)
		if err != nil || !s.Configured {
			continue
		}
		if s.Installed {
			return evidence.IKEAuth{Skipped: "a child SA with the peer exists in " + d.Name() + ", so both ends are authenticated already"}
		}
		r := p.ask(ctx, d, a)
		asked = &r
		break
	}
	if asked != nil && (!refused(asked) || p.holdsSA(a)) {
		return *asked
	}
	own := p.negotiate(ctx, a, psk)
	if asked == nil || asked.Skipped != "" || explains(own, *asked) {
		return own
	}
	return *asked
}

// refused reports whether the daemon was refused, or could not try: then our
// own negotiation may tell more.
func refused(asked *evidence.IKEAuth) bool {
	return asked.CannotLook == "" && (asked.Skipped != "" || asked.Stage == evidence.StageAuth || asked.Stage == evidence.StageChild)
}

// explains reports whether our own negotiation says more of a refusal that
// the daemon met too.
func explains(own, asked evidence.IKEAuth) bool {
	if !own.Time.Known() {
		return false
	}
	return own.RemoteIDOther == evidence.Yes || own.Stage == asked.Stage && own.Stage == evidence.StageChild
}

// ask has the local daemon negotiate.
func (p *peer) ask(ctx context.Context, d daemon.Daemon, a netip.Addr) evidence.IKEAuth {
	if earlier, ok := p.reserve(a, byDaemon, halfOpenEvery); !ok {
		return earlier
	}
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	began := time.Now()
	r, err := d.Initiate(ctx, a, len(p.cfg.ESP.Proposals) > 0)
	if err != nil {
		return evidence.IKEAuth{CannotLook: err.Error()}
	}
	if !r.Time.Known() {
		r.Time = evidence.Some(began)
	}
	p.keep(a, byDaemon, r)
	return r
}

// negotiate negotiates ourselves.
func (p *peer) negotiate(ctx context.Context, a netip.Addr, psk []byte) evidence.IKEAuth {
	if p.cfg.IKE.Version == 1 {
		return evidence.IKEAuth{Skipped: "vpnprobe itself authenticates in IKEv2 only, and no local daemon has this connection"}
	}
	if earlier, ok := p.reserve(a, authenticated, authEvery); !ok {
		return earlier
	}
	r := ikeauth.Run(ctx, ikeauth.Config{
		Target: a, Source: p.cfg.Source, Ports: p.env.IKEPorts,
		Proposals: p.state.declared.IKEProposals, ESPProposals: p.state.declared.ESPProposals, ESPMode: p.cfg.ESP.Mode,
		LocalSubnets: p.cfg.LocalSubnets, RemoteSubnets: p.cfg.RemoteSubnets,
		LocalID: p.cfg.IKE.LocalID, RemoteID: p.cfg.IKE.RemoteID, PSK: psk, Timeout: authTimeout,
	})
	p.keep(a, authenticated, r)
	return r
}

// reserve takes a slot of the budget for good. Else it returns what an earlier
// run found in the slot, or why there is none.
func (p *peer) reserve(a netip.Addr, kind string, hold time.Duration) (earlier evidence.IKEAuth, ok bool) {
	skip := func(why string) (evidence.IKEAuth, bool) { return evidence.IKEAuth{Skipped: why}, false }
	source, err := p.sourceTo(a)
	if err != nil {
		return skip(err.Error())
	}
	if p.env.Budget == nil {
		return skip(p.env.BudgetErr)
	}
	key := budget.Key{Source: source, Peer: a, Kind: kind}
	_, err = p.env.Budget.Reserve(key, hold)
	spent := (*budget.SpentError)(nil)
	switch {
	case err == nil:
		return earlier, true
	case !errors.As(err, &spent):
		return skip(err.Error())
	}
	if saved, err := p.env.Budget.Load(key, &earlier); err == nil && time.Since(saved) < hold && earlier.Time.Known() {
		earlier.Reused = true
		return earlier, false
	}
	return skip(fmt.Sprintf("the last attempt is too recent: one every %v, so again in %v", hold, time.Until(spent.Until).Round(time.Second)))
}

// keep keeps what was found for the runs that may not look again yet.
func (p *peer) keep(a netip.Addr, kind string, r evidence.IKEAuth) {
	if r.CannotLook != "" {
		return
	}
	source, err := p.sourceTo(a)
	if err == nil {
		err = p.env.Budget.Save(budget.Key{Source: source, Peer: a, Kind: kind}, r)
	}
	if err != nil {
		p.log.Warn("cannot keep the result for the next run", "err", err)
	}
}

// holdsSA reports whether the kernel holds an SA with the peer.
func (p *peer) holdsSA(a netip.Addr) bool {
	return len(p.env.Host.Tunnel([]netip.Addr{a}, p.cfg.Source).SAs) > 0
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
		return nil, fmt.Errorf("read pre-shared key: %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("read pre-shared key: %s has mode %#o: others may read it; chmod 600 %s", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPSK+1))
	if err != nil {
		return nil, fmt.Errorf("read pre-shared key %s: %w", path, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("read pre-shared key: %s is empty", path)
	case len(b) > maxPSK:
		return nil, fmt.Errorf("read pre-shared key: %s is longer than %d bytes", path, maxPSK)
	}
	return b, nil
}
