package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"vpnprobe/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a vici message: keys and, in turn, a string, a list or a tree.
type tree []any

// encode writes a message (vici README, "message format").
func (m tree) encode(b []byte) []byte {
	name := func(kind byte, s string) { b = append(append(b, kind, byte(len(s))), s...) }
	value := func(s string) { b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...) }
	for i := 0; i < len(m); i += 2 {
		switch v := m[i+1].(type) {
		case tree:
			name(1, m[i].(string))
			b = append(v.encode(b), 2)
		case []string:
			name(4, m[i].(string))
			for _, item := range v {
				b = append(b, 5)
				value(item)
			}
			b = append(b, 6)
		case string:
			name(3, m[i].(string))
			value(v)
		}
	}
	return b
}

// fakeCharon serves vici. Its answers are functions of the connection, so
// that a test sees to what charon was asked before.
type fakeCharon struct {
	path  string
	sas   func() []tree // of list-sas
	conns []tree
	// initiate and rekey send events and return the reason for a refusal.
	initiate, rekey func(send func(event string, m tree), gone <-chan struct{}) string
	early           func(send func(event string, m tree)) // called before a registration is confirmed

	mu    sync.Mutex
	calls []string
}

func (f *fakeCharon) start(t *testing.T) *strongSwan {
	t.Helper()
	f.path = filepath.Join(t.TempDir(), "charon.vici")
	listener, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		served.Wait()
	})
	return &strongSwan{f.path}
}

// serve answers one session. Requests are read ahead, so that a command which
// takes its time notices that its client has gone.
func (f *fakeCharon) serve(conn net.Conn) {
	defer conn.Close()
	gone := make(chan struct{})
	requests := make(chan []byte, 16)
	go func() {
		defer close(gone)
		defer close(requests)
		for {
			var length [4]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				return
			}
			packet := make([]byte, binary.BigEndian.Uint32(length[:]))
			if _, err := io.ReadFull(conn, packet); err != nil {
				return
			}
			requests <- packet
		}
	}()
	write := func(kind byte, name string, m tree) {
		packet := []byte{kind}
		if name != "" {
			packet = append(append(packet, byte(len(name))), name...)
		}
		packet = m.encode(packet)
		conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(packet))), packet...))
	}
	send := func(event string, m tree) { write(viciEvent, event, m) }
	for r := range requests {
		name, rest := string(r[2:2+r[1]]), r[2+r[1]:]
		if r[0] != 0 { // an event is registered or not
			if f.early != nil {
				f.early(send)
			}
			write(viciEventConfirm, "", nil)
			continue
		}
		if refused := f.command(name, string(rest), send, gone); refused != "" {
			write(1, "", tree{"success", "no", "errmsg", refused})
		} else {
			write(1, "", tree{"success", "yes"})
		}
	}
}

func (f *fakeCharon) command(name, arguments string, send func(string, tree), gone <-chan struct{}) string {
	f.mu.Lock()
	if name == "terminate" || name == "rekey" {
		f.calls = append(f.calls, name+" "+ids(arguments))
	} else {
		f.calls = append(f.calls, name)
	}
	f.mu.Unlock()
	switch {
	case name == "list-sas" && f.sas != nil:
		for _, sa := range f.sas() {
			send("list-sa", sa)
		}
	case name == "list-conns":
		for _, c := range f.conns {
			send("list-conn", c)
		}
	case name == "initiate":
		return f.initiate(send, gone)
	case name == "rekey":
		return f.rekey(send, gone)
	case name == "terminate":
		send("control-log", tree{"group", "IKE", "level", "1", "msg", "IKE_SA deleted"})
	}
	return ""
}

// ids returns the value of an id in an encoded message.
func ids(arguments string) string {
	for _, key := range []string{"ike-id", "child-id"} {
		if _, after, ok := strings.Cut(arguments, key); ok {
			return key + " " + after[2:2+int(after[1])]
		}
	}
	return arguments
}

// asked returns the commands so far, without those that only look.
func (f *fakeCharon) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(c string) bool { return strings.HasPrefix(c, "list-") })
}

// has reports whether charon was asked to do something.
func (f *fakeCharon) has(call string) bool { return slices.Contains(f.asked(), call) }

func conn(remote string) tree {
	return tree{"cloud", tree{"remote_addrs", []string{remote}, "version", "IKEv2", "children",
		tree{"lan", tree{"mode", "TUNNEL", "local-ts", []string{"10.1.0.0/24"}, "remote-ts", []string{"10.2.0.0/24"}}}}}
}

func sa(id, state string, children ...tree) tree {
	list := tree{}
	for _, c := range children {
		list = append(list, c...)
	}
	return tree{"cloud", tree{"uniqueid", id, "version", "2", "state", state, "remote-host", "198.51.100.2", "initiator", "yes", "child-sas", list}}
}

func childIn(id, state string) tree {
	return tree{"lan-" + id, tree{"name", "lan", "uniqueid", id, "state", state}}
}

func TestStrongSwanStatus(t *testing.T) {
	task := tree{"cloud", tree{"uniqueid", "1", "state", "ESTABLISHED", "remote-host", "198.51.100.2", "tasks-active", []string{"IKE_DPD", "CHILD_CREATE"}}}
	for _, tt := range []struct {
		name  string
		conns []tree
		sas   []tree
		want  Status
	}{
		{"nothing", nil, nil, Status{}},
		{"configured", []tree{conn("198.51.100.2")}, nil, Status{Configured: true}},
		{"another peer", []tree{conn("198.51.100.3")}, []tree{{"x", tree{"state", "CONNECTING", "remote-host", "198.51.100.3"}}}, Status{}},
		{"anyone", []tree{conn("%any")}, nil, Status{}},
		{"network", []tree{conn("198.51.100.0/24")}, nil, Status{Configured: true}},
		{"everything", []tree{conn("0.0.0.0/0")}, nil, Status{}},
		{"range", []tree{conn("198.51.100.1-198.51.100.9")}, nil, Status{Configured: true}},
		{"beside a range", []tree{conn("198.51.100.3-198.51.100.9")}, nil, Status{}},
		{"name", []tree{conn("localhost"), conn("")}, nil, Status{}},
		{"connecting", []tree{conn("198.51.100.2")}, []tree{sa("1", "CONNECTING")}, Status{Configured: true, Negotiating: true}},
		{"established", nil, []tree{sa("1", "ESTABLISHED")}, Status{Established: true}},
		{"child being made", nil, []tree{task}, Status{Established: true, Negotiating: true}},
		{"installed", nil, []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, Status{Established: true, Installed: true}},
		{"rekeying", nil, []tree{sa("1", "REKEYING", childIn("2", "REKEYING"))}, Status{Established: true, Installed: true}},
		{"going", nil, []tree{sa("1", "DELETING", childIn("2", "DELETED"))}, Status{}},
		{"no sections", nil, []tree{{"cloud", "x"}, {"cloud", tree{"child-sas", "x", "remote-host", []string{"198.51.100.2"}}}}, Status{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := (&fakeCharon{conns: tt.conns, sas: func() []tree { return tt.sas }}).start(t)
			got, err := d.Status(t.Context(), evidencePeer)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStrongSwanMapped(t *testing.T) {
	d := (&fakeCharon{conns: []tree{conn("198.51.100.2")}, sas: func() []tree { return []tree{sa("1", "ESTABLISHED")} }}).start(t)
	got, err := d.Status(t.Context(), netip.MustParseAddr("::ffff:198.51.100.2"))
	if want := (Status{Configured: true, Established: true}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// play sends a recording as charon does.
func play(t *testing.T, name, id, event string) func(send func(string, tree)) {
	t.Helper()
	list := lines(t, "charon/"+name)
	return func(send func(string, tree)) {
		for _, line := range list {
			group, msg := charonSays(line)
			send(event, tree{"group", group, "level", "1", "ikesa-name", "cloud", "ikesa-uniqueid", id, "msg", msg})
		}
	}
}

func TestStrongSwanInitiate(t *testing.T) {
	complete := with(established, func(a *evidence.IKEAuth) { a.Narrowed = evidence.No })
	none := []tree(nil)
	for _, tt := range []struct {
		name     string
		log      string
		refused  string
		rekeyLog string
		before   []tree
		after    []tree // once charon has been asked to initiate
		rekey    bool
		asked    []string
		want     evidence.IKEAuth
	}{
		{"established", "ikev2-established", "", "", none, []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, false, []string{"initiate"}, complete},
		{"rekeyed", "ikev2-established", "", "rekey-accepted", none, []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, true, []string{"initiate", "rekey child-id 2"},
			with(complete, func(a *evidence.IKEAuth) { a.Rekey = evidence.Yes })},
		{"rekey refused", "ikev2-established", "", "rekey-refused", none, []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, true, []string{"initiate", "rekey child-id 2"},
			with(complete, func(a *evidence.IKEAuth) { a.Rekey, a.Notify = evidence.No, "NO_PROPOSAL_CHOSEN" })},
		{"set up by someone else", "ikev2-child-only", "", "", []tree{sa("1", "ESTABLISHED")}, []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, true, []string{"initiate"},
			evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, ESPChosen: "aes256-sha256-modp2048",
				Selectors: "10.1.0.0/24 === 10.2.0.0/24", Narrowed: evidence.No, Rekey: evidence.Yes}},
		{"key refused", "ikev2-psk", "establishing CHILD_SA 'lan' failed", "", none, none, true, []string{"initiate"}, wrongKey},
		{"child refused", "ikev2-selectors", "establishing CHILD_SA 'lan' failed", "", none, []tree{sa("5", "ESTABLISHED")}, true, []string{"initiate", "terminate ike-id 5"},
			with(child("TS_UNACCEPTABLE"), func(a *evidence.IKEAuth) { a.Deleted = evidence.Yes })},
		{"silence", "ikev2-silence", "CHILD_SA 'lan' not established after 12000ms", "", []tree{{"other", tree{"uniqueid", "13", "state", "CONNECTING", "remote-host", "192.0.2.9"}}},
			[]tree{sa("14", "CONNECTING"), {"other", tree{"uniqueid", "13", "state", "CONNECTING", "remote-host", "192.0.2.9"}}}, true, []string{"initiate", "terminate ike-id 14"}, initial},
		{"what was there stays", "ikev2-selectors", "establishing CHILD_SA 'lan' failed", "", []tree{sa("5", "ESTABLISHED")}, []tree{sa("5", "ESTABLISHED")}, true, []string{"initiate"},
			child("TS_UNACCEPTABLE")},
		{"what carries stays", "ikev2-selectors", "establishing CHILD_SA 'lan' failed", "", none, []tree{sa("5", "ESTABLISHED", childIn("9", "INSTALLED"))}, true, []string{"initiate"},
			child("TS_UNACCEPTABLE")},
		{"installed", "", "", "", []tree{sa("1", "ESTABLISHED", childIn("2", "INSTALLED"))}, none, true, nil,
			evidence.IKEAuth{Skipped: "a child SA with 198.51.100.2 is up in strongSwan, which shows that both ends agree"}},
		{"negotiating", "", "", "", []tree{sa("1", "CONNECTING")}, none, true, nil,
			evidence.IKEAuth{Skipped: "strongSwan is negotiating with 198.51.100.2 itself"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeCharon{conns: []tree{conn("198.51.100.0/24"), conn("198.51.100.2")}}
			f.sas = func() []tree {
				if f.has("initiate") {
					return tt.after
				}
				return tt.before
			}
			if tt.log != "" {
				log := play(t, tt.log, "1", "control-log")
				f.initiate = func(send func(string, tree), _ <-chan struct{}) string { log(send); return tt.refused }
			}
			if tt.rekeyLog != "" {
				other, ours := play(t, "ikev2-psk", "7", "log"), play(t, tt.rekeyLog, "1", "log")
				f.rekey = func(send func(string, tree), _ <-chan struct{}) string { other(send); ours(send); return "" }
			}
			got, err := f.start(t).Initiate(t.Context(), evidencePeer, tt.rekey)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, withoutTime); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.asked, f.asked(), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if got.By != evidence.ByStrongSwan || got.Time.Known() == (got.Skipped != "") {
				t.Errorf("by %q at %v", got.By, got.Time)
			}
		})
	}
}

func TestStrongSwanNotConfigured(t *testing.T) {
	f := &fakeCharon{conns: []tree{conn("192.0.2.1"), {"childless", tree{"remote_addrs", []string{"198.51.100.2"}}}}}
	d := f.start(t)
	got, err := d.Initiate(t.Context(), evidencePeer, true)
	want := evidence.IKEAuth{Skipped: "strongSwan has no connection to 198.51.100.2 that it could set up"}
	if diff := cmp.Diff(want, got, withoutTime); !errors.Is(err, ErrUnable) || diff != "" {
		t.Error(err, diff)
	}
	// But an SA that the peer began, as of a connection for anyone, is not to
	// be disturbed.
	for state, why := range map[string]string{
		"ESTABLISHED": "an IKE SA with 198.51.100.2 is up in strongSwan, which has no connection to it that it could set up",
		"CONNECTING":  "strongSwan is negotiating with 198.51.100.2 itself",
	} {
		f.sas = func() []tree { return []tree{sa("1", state)} }
		got, err := d.Initiate(t.Context(), evidencePeer, true)
		if diff := cmp.Diff(evidence.IKEAuth{Skipped: why}, got, withoutTime); err != nil || diff != "" {
			t.Errorf("%s: %v %s", state, err, diff)
		}
	}
}

// TestStrongSwanHangs: charon takes a command and never answers. The caller's
// end counts, what was said until then too, and the attempt is taken back.
func TestStrongSwanHangs(t *testing.T) {
	log := play(t, "ikev2-silence", "14", "control-log")
	f := &fakeCharon{conns: []tree{conn("198.51.100.2")}}
	ctx, cancel := context.WithCancel(t.Context())
	f.initiate = func(send func(string, tree), gone <-chan struct{}) string {
		log(send)
		cancel()
		<-gone
		return ""
	}
	f.sas = func() []tree {
		other := tree{"other", tree{"uniqueid", "13", "state", "CONNECTING", "remote-host", "192.0.2.9", "initiator", "yes"}}
		if f.has("initiate") {
			return []tree{other, sa("14", "CONNECTING")}
		}
		return []tree{other}
	}
	got, err := f.start(t).Initiate(ctx, evidencePeer, true)
	// Charon's lines may have come before the end or not.
	if err == nil {
		if diff := cmp.Diff(initial, got, withoutTime); diff != "" {
			t.Error(diff)
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !f.has("terminate ike-id 14") || f.has("terminate ike-id 13") {
		t.Errorf("asked for %q", f.asked())
	}
}

// TestStrongSwanMute: a charon that takes the connection and nothing else.
func TestStrongSwanMute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vici")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	d := &strongSwan{path}
	if _, err := d.Status(ctx, evidencePeer); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
		t.Errorf("a status that does not come: %v", err)
	}
	if got, err := d.Initiate(ctx, evidencePeer, true); !errors.Is(err, context.DeadlineExceeded) || got.Time.Known() {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestStrongSwanFloods: too much of everything ends somewhere.
func TestStrongSwanFloods(t *testing.T) {
	f := &fakeCharon{conns: []tree{conn("198.51.100.2")}}
	f.initiate = func(send func(string, tree), _ <-chan struct{}) string {
		for i := range 2 * maxEvents {
			send("control-log", tree{"group", "IKE", "msg", fmt.Sprintf("line %d %s", i, strings.Repeat("x", 300))})
		}
		return "failed"
	}
	d := f.start(t)
	got, err := d.Initiate(t.Context(), evidencePeer, true)
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, got.Said)

	f.sas = func() []tree { return slices.Repeat([]tree{sa("1", "ESTABLISHED")}, maxEvents+1) }
	if _, err := d.Status(t.Context(), evidencePeer); err == nil || !strings.Contains(err.Error(), "more than 4096 items") {
		t.Errorf("a list without end: %v", err)
	}
	huge := tree{"x", strings.Repeat("y", 60000)}
	f.sas = func() []tree { return []tree{slices.Concat(slices.Repeat(huge, 10))} }
	if _, err := d.Status(t.Context(), evidencePeer); err == nil {
		t.Error("took a packet above the limit")
	}
}

// TestStrongSwanEarlyEvents: events that come while the library registers for
// them would stop it for good.
func TestStrongSwanEarlyEvents(t *testing.T) {
	f := &fakeCharon{conns: []tree{conn("198.51.100.2")}}
	f.early = func(send func(string, tree)) {
		for _, event := range []string{"list-sa", "list-conn", "log", "control-log"} {
			send(event, tree{"group", "IKE", "msg", "early"})
		}
	}
	if got, err := f.start(t).Status(t.Context(), evidencePeer); err != nil || !got.Configured {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDialError(t *testing.T) {
	d := &strongSwan{filepath.Join(t.TempDir(), "none")}
	if _, err := d.Status(t.Context(), evidencePeer); err == nil || !strings.HasSuffix(err.Error(), "/none: the socket is not in this process's file system, or the daemon has ended") {
		t.Errorf("got %v", err)
	}
}

// FuzzFrames reads what might come through the socket.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x05\x00\x00\x00\x02\x07\x00"), true)
	f.Add([]byte("\x00\x00\x00\x00"), false)
	f.Fuzz(func(t *testing.T, in []byte, registering bool) {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			server.Write(in)
			server.Close()
		}()
		fr := &frames{Conn: client}
		fr.registering.Store(registering)
		out, err := io.ReadAll(fr)
		if err == nil && len(out) > len(in) {
			t.Errorf("%d bytes became %d", len(in), len(out))
		}
	})
}
