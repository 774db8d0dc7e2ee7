package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/rawconn"
)

// MinRecording is the smallest [RecordConfig.MaxSize] that makes sense.
const MinRecording = capture.MinRecording

// RecordConfig says where [Record] keeps the packets.
type RecordConfig struct {
	Path    string // must not exist yet
	MaxSize int64  // of the file, in bytes; at least MinRecording
	App     string // what records, for the file's header
	// Comment is what the file says of itself.
	Comment func(*diagnosis.Report, Recorded) string
}

// Recorded is what became of a recording.
type Recorded struct {
	capture.Recorded
	// Capture is what was counted of what was recorded, and how well it was
	// listened to.
	Capture evidence.Capture
}

// ErrNothingRecorded means that no packet could be captured; there is no file
// then.
var ErrNothingRecorded = errors.New("no packet could be captured")

// Record looks at one peer as [Probe] does, and keeps the packets that pass
// between this host and the peer meanwhile, without their payload. The report is
// nil only when the file could not be created.
func Record(ctx context.Context, cfg *config.Config, p config.Peer, d time.Duration, env Env, sub Subscriber, rec RecordConfig) (*diagnosis.Report, Recorded, error) {
	file, err := capture.NewRecorder(capture.RecordConfig{Path: rec.Path, MaxSize: rec.MaxSize, App: rec.App})
	if err != nil {
		return nil, Recorded{}, fmt.Errorf("record: %w", err)
	}
	t, err := openTape(env.Host, p, file)
	if err != nil {
		file.Finish(func(capture.Recorded) string { return "" }, 0)
		os.Remove(rec.Path)
		return nil, Recorded{}, fmt.Errorf("record: %w", err)
	}
	t.thread(ctx)
	running, stop := context.WithCancel(context.Background()) // till the last answers to the probes
	var wg sync.WaitGroup
	wg.Go(func() { t.live.Run(running) }) // what goes wrong shows in the counts
	wg.Go(func() { t.follow(running) })
	r := Probe(ctx, cfg, p, d, nil, env, sub)
	time.Sleep(rawconn.RingDelay) // also when ctx ended: the ring may still keep packets to itself
	stop()
	wg.Wait()
	out := Recorded{Capture: t.window(r.Snapshot.Host.Tunnel)}
	t.live.Close()
	dropped := out.Capture.Dropped
	if out.Capture.Watched < out.Capture.Over {
		dropped = max(dropped, 1) // some were passed over, and how many is not known
	}
	out.Recorded = file.Finish(func(so capture.Recorded) string {
		out.Recorded = so
		return rec.Comment(r, out)
	}, dropped)
	if out.Frames == 0 && out.Capture.Mode != evidence.CaptureRing {
		os.Remove(rec.Path)
		return r, out, fmt.Errorf("record: %w: %s", ErrNothingRecorded, out.Capture.Reason)
	}
	return r, out, nil
}

// tape is the capture of a recording. It is one of its own, since the other one
// may count in the kernel and not see the packets.
type tape struct {
	host *hoststate.Reader
	live *capture.Live
	peer capture.Peer
	cfg  config.Peer
}

func openTape(host *hoststate.Reader, p config.Peer, to *capture.Recorder) (*tape, error) {
	live, err := capture.Open(capture.Config{Mode: evidence.CaptureRing, XDP: capture.XDPNever, Tee: to.Frame})
	if err != nil {
		return nil, err
	}
	return &tape{host: host, live: live, cfg: p, peer: capture.Peer{Name: p.Name, Local: p.LocalSubnets, Remote: p.RemoteSubnets}}, nil
}

// follow keeps up with the peer's addresses and the routes to them.
func (t *tape) follow(ctx context.Context) {
	for sleep(ctx, time.Second) {
		t.thread(ctx)
	}
}

// thread has the capture listen where the peer's packets pass now.
func (t *tape) thread(ctx context.Context) {
	addrs, err := lookUp(ctx, t.cfg.Gateway, t.cfg.Source)
	if err != nil {
		addrs = t.peer.Addrs // those it had
	}
	ifaces := t.underlay(addrs)
	if slices.Equal(addrs, t.peer.Addrs) && slices.Equal(ifaces, t.peer.Interfaces) {
		return
	}
	t.peer.Addrs, t.peer.Interfaces = addrs, ifaces
	t.live.SetPeers([]capture.Peer{t.peer})
}

// underlay returns the interfaces by which the host could send to the peer, and
// those that were listened on before: a packet may still come in there.
func (t *tape) underlay(addrs []netip.Addr) []string {
	out := slices.Clone(t.peer.Interfaces)
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) && len(out) < maxEgresses {
			out = append(out, name)
		}
	}
	add(t.cfg.Interface)
	for _, a := range addrs {
		add(t.host.Route(a, t.cfg.Source, "").Interface)
		list, err := t.host.Egresses(a, t.cfg.Source)
		if err != nil {
			continue // no route: there is nothing to add
		}
		for _, name := range list {
			add(name)
		}
	}
	return out
}

// window is what the capture counted from beginning to end.
func (t *tape) window(tunnel evidence.Tunnel) evidence.Capture {
	blind, why := evidence.No, ""
	for _, iface := range t.peer.Interfaces {
		if hidden, w := t.host.CaptureBlind(iface, tunnel); hidden != evidence.No && blind != evidence.Yes {
			blind, why = hidden, w
		}
	}
	c := t.live.Counts(t.peer.Name).Since(capture.Counts{}, blind)
	if why != "" {
		c.Reason = why
	}
	return c
}
