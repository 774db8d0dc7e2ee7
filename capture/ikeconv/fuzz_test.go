package ikeconv

import (
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// FuzzAdd shows a conversation whatever it takes the input for: messages, each
// behind two bytes of flags and time and two of length. Nothing grows beyond
// its bounds, and no counter falls.
func FuzzAdd(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pcap")
	if err != nil || len(files) == 0 {
		f.Fatalf("no captures: %v", err)
	}
	for _, file := range files {
		var seed []byte
		for i, m := range readCapture(f, file, ourAddress) {
			if i == 8 {
				break
			}
			flags := byte(0)
			if m.Ours {
				flags |= 1
			}
			seed = append(seed, flags, 1)
			seed = binary.BigEndian.AppendUint16(seed, uint16(len(m.Data)))
			seed = append(seed, m.Data...)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) { play(t, b) })
}

func play(t *testing.T, b []byte) {
	c := New()
	now := time.Unix(1e9, 0)
	var before Reading
	for len(b) >= 4 {
		flags, wait, n := b[0], b[1], int(binary.BigEndian.Uint16(b[2:]))
		n = min(n, len(b)-4)
		m := Message{Ours: flags&1 != 0, LocalPort: port, RemotePort: port, NATT: flags&2 != 0, Data: b[4 : 4+n], Size: n, Fragment: flags&4 != 0}
		b = b[4+n:]
		now = now.Add(time.Duration(wait) * 100 * time.Millisecond)
		if flags&8 != 0 {
			now = now.Add(-time.Hour) // the clock was set
		}
		if flags&16 != 0 {
			c.Gap()
		}
		m.Time = now
		c.Add(m)
		r := c.Snapshot(now)
		check(t, c, r, before)
		before = r
	}
	check(t, c, c.Snapshot(now.Add(time.Hour)), before)
}

// check compares two readings of a conversation.
func check(t *testing.T, c *Conversation, r, before Reading) {
	t.Helper()
	if len(c.table.known) > maxKnown || len(c.table.strangers) > maxStrangers || len(c.notifies) > 1000 {
		t.Fatalf("%d and %d IKE SAs, %d notifies", len(c.table.known), len(c.table.strangers), len(c.notifies))
	}
	k := r.Since(before)
	all := r.Since(Reading{})
	const fell = 1 << 62
	for _, d := range [2]evidence.IKEDirection{k.In, k.Out} {
		for _, n := range []uint64{d.Requests, d.Retransmissions, d.Answered, d.Unanswered, d.Deletes, d.DPD.Requests, d.DPD.Answered, d.DPD.Missed, d.DPD.Trailing} {
			if n > fell {
				t.Fatalf("a counter fell: %+v", d)
			}
		}
	}
	if k.Rekeys > fell || k.RekeysFailed > fell || k.Attempts > fell {
		t.Fatalf("a counter fell: %+v", k)
	}
	for _, d := range [2]evidence.IKEDirection{all.In, all.Out} {
		if d.Requests < d.Answered+d.Unanswered || d.DPD.Requests < d.DPD.Answered+d.DPD.Missed || d.Requests < d.DPD.Requests || len(d.DPD.RTTs) > keptRTTs {
			t.Fatalf("counters contradict each other: %+v", d)
		}
	}
	for _, n := range k.Notifies {
		if n.Count == 0 || n.Count > fell {
			t.Fatalf("notify %+v", n)
		}
	}
	if n, ok := k.Newest.Get(); ok && (n.Repeated < 1 || n.Reached == "") {
		t.Fatalf("negotiation %+v", n)
	}
	if len(k.Offers) > 2 || len(k.Notifies) > maxNotifies {
		t.Fatalf("%d offers, %d notifies", len(k.Offers), len(k.Notifies))
	}
}

// TestMangled plays real conversations with messages lost, repeated, swapped,
// cut, and changed in a byte.
func TestMangled(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.pcap")
	for seed, file := range files {
		list := readCapture(t, file, ourAddress)
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		for range 20 {
			c := New()
			var before Reading
			for i := range list {
				m := list[i]
				switch rnd.IntN(12) {
				case 0:
					continue
				case 1:
					c.Add(m)
				case 2:
					m = list[rnd.IntN(len(list))]
				case 3:
					m.Data = m.Data[:rnd.IntN(len(m.Data)+1)]
				case 4:
					m.Data = append([]byte(nil), m.Data...)
					m.Data[rnd.IntN(len(m.Data))] = byte(rnd.Uint32())
				case 5:
					m.Ours = !m.Ours
				}
				c.Add(m)
				r := c.Snapshot(m.Time)
				check(t, c, r, before)
				before = r
			}
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	w := newWire(ours).establish()
	b.Run("dpd", func(b *testing.B) {
		messages := [2]Message{}
		for i, response := range []bool{false, true} {
			from := ours
			if response {
				from = theirs
			}
			data := w.protected(from, ike.Informational, 2, response, 0)
			messages[i] = Message{Time: w.now, Ours: !response, LocalPort: port, RemotePort: port, Data: data, Size: len(data)}
		}
		b.ReportAllocs()
		id := uint32(2)
		for i := 0; b.Loop(); i++ {
			m := messages[i&1]
			binary.BigEndian.PutUint32(m.Data[20:], id)
			w.c.Add(m)
			id += uint32(i & 1)
		}
	})
	b.Run("init", func(b *testing.B) { // a flood of forged first messages
		f := newWire(theirs)
		f.c = w.c
		m := f.init(cbc, someKE, someNo)
		b.ReportAllocs()
		for i := uint64(1); b.Loop(); i++ {
			binary.BigEndian.PutUint64(m.Data, i)
			w.c.Add(m)
		}
	})
	b.Run("probe", func(b *testing.B) { // of this agent's own
		m := w.request(ours, ike.Informational, 1<<30, 0)
		m.LocalPort = 40000
		b.ReportAllocs()
		for b.Loop() {
			w.c.Add(m)
		}
	})
}
