package ikeconv

import (
	"fmt"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// The lengths of a lone notify, by RFC 7296 section 3.14 and the RFCs of the
// algorithms.
func TestSize(t *testing.T) {
	for _, tt := range []struct {
		words []string
		empty int // no payload
		lone  int // one notify
	}{
		{[]string{"aes128", "sha1", "prfsha1"}, 76, 76},
		{[]string{"aes256", "sha256", "prfsha256"}, 80, 80},
		{[]string{"aes256", "sha384", "prfsha384"}, 88, 88},
		{[]string{"aes256", "sha512", "prfsha512"}, 96, 96},
		{[]string{"3des", "sha1", "prfsha1"}, 60, 68},
		{[]string{"3des", "md5", "prfmd5"}, 60, 68},
		{[]string{"aes256ctr", "aesxcbc", "prfaesxcbc"}, 53, 61},
		{[]string{"aes128gcm16", "prfsha256"}, 57, 65},
		{[]string{"aes256gcm8", "prfsha1"}, 49, 57},
		{[]string{"aes256ccm12", "prfsha256"}, 53, 61},
		{[]string{"chacha20poly1305", "prfsha256"}, 57, 65},
		{[]string{"camellia256", "sha256", "prfsha256"}, 80, 80},
	} {
		s := suiteOf(proposal(tt.words...))
		if !s.known || s.size(0) != tt.empty || s.size(notifyLen) != tt.lone {
			t.Errorf("%v: %+v: %d and %d bytes, want %d and %d", tt.words, s, s.size(0), s.size(notifyLen), tt.empty, tt.lone)
		}
		for n := range 300 {
			if lo, hi, ok := s.inner(s.size(n)); !ok || n < lo || n > hi || hi-lo != s.block-1 {
				t.Errorf("%v: %d bytes have a length that says %d to %d, %v", tt.words, n, lo, hi, ok)
			}
			if lo, hi, ok := (suite{}).inner(s.size(n)); !ok || n < lo || n > hi {
				t.Errorf("%v: %d bytes have a length that without the suite says %d to %d, %v", tt.words, n, lo, hi, ok)
			}
		}
		if r, ok := s.judge(tt.lone); !ok || r != evidence.ReachedRejected {
			t.Errorf("%v: a lone notify is %q, %v", tt.words, r, ok)
		}
		if s.setsUp(tt.lone) || s.setsUp(s.size(10)) || !s.setsUp(s.size(32+20+48)) {
			t.Errorf("%v: refused and successful rekeys are not told apart", tt.words)
		}
		if (suite{}).setsUp(tt.lone) || !(suite{}).setsUp(s.size(36+36+48)) {
			t.Errorf("%v: refused and successful rekeys are not told apart without the suite", tt.words)
		}
	}
	for _, words := range [][]string{
		{"aes256", "prfsha256"}, {"sha256", "prfsha256"}, {"aes256", "sha256"},
		{"aes256", "aes128", "sha256", "prfsha256"}, {"aes256gmac", "sha256", "prfsha256"},
	} {
		if s := suiteOf(proposal(words...)); s.known {
			t.Errorf("%v is a suite: %+v", words, s)
		}
	}
}

// What the payloads of real answers add up to, of every suite: a refusal, a
// refused child by several identities and notifies, and a success.
func TestJudge(t *testing.T) {
	for _, words := range [][]string{
		{"aes128", "sha1", "prfsha1"}, {"aes256", "sha256", "prfsha256"}, {"aes256", "sha384", "prfsha384"},
		{"aes256", "sha512", "prfsha512"}, {"3des", "sha1", "prfsha1"}, {"aes256gcm16", "prfsha256"}, {"aes256gcm16", "prfsha384"},
	} {
		s := suiteOf(proposal(words...))
		for _, id := range []int{4, 13, 16, 24, 30} { // an address, names
			for _, more := range []int{0, 8, 28} { // notifies
				common := 8 + id + 8 + s.prf + more
				for _, tt := range []struct {
					what string
					n    int
					want evidence.IKEReached
				}{
					{"child refused", common + 8, evidence.ReachedIKE},
					{"child refused for another group", common + 10, evidence.ReachedIKE},
					{"GCM", common + 36 + 48, evidence.ReachedChild},
					{"CBC", common + 44 + 48, evidence.ReachedChild},
					{"CBC, IPv6", common + 44 + 80, evidence.ReachedChild},
				} {
					if s.prf+tt.n > 330 { // beyond what a shared key needs
						continue
					}
					if r, ok := s.judge(s.size(tt.n)); !ok || r != tt.want {
						t.Errorf("%v, identity of %d, notifies of %d, %s: %q, want %q", words, id, more, tt.what, r, tt.want)
					}
				}
			}
		}
		for _, n := range []int{600, 1200, 3000} { // certificates
			if r, _ := s.judge(s.size(n)); r != evidence.ReachedIKE {
				t.Errorf("%v: %d bytes are %q", words, n, r)
			}
		}
	}
}

// A step is one message of a synthetic negotiation.
type step func(w *wire)

func wait(d time.Duration) step { return func(w *wire) { w.wait(d) } }

func TestNegotiation(t *testing.T) {
	open := func(w *wire) { w.init(gcm, someKE, someNo) }
	chose := func(w *wire) { w.initAnswer(gcm, someKE, someNo) }
	auth := func(id uint32) step { return func(w *wire) { w.request(w.initiator, ike.Auth, id, 230) } }
	authed := func(id uint32, n int) step { return func(w *wire) { w.answer(w.initiator, ike.Auth, id, n) } }
	info := func(id uint32, n int) step {
		return func(w *wire) { w.request(w.initiator, ike.Informational, id, n) }
	}
	for _, tt := range []struct {
		name   string
		steps  []step
		want   evidence.IKEReached
		notify string
	}{
		{"nobody there", []step{open}, evidence.ReachedAsked, ""},
		{"no proposal", []step{open, func(w *wire) { w.initAnswer(none14) }}, evidence.ReachedRefused, "NO_PROPOSAL_CHOSEN"},
		{"a cookie", []step{open, func(w *wire) { w.initAnswer(cookie) }, wait(time.Minute)}, evidence.ReachedAsked, ""},
		{"a cookie that came back", []step{open, func(w *wire) { w.initAnswer(cookie) }, func(w *wire) { w.init(cookie, gcm, someKE, someNo) }, chose}, evidence.ReachedInit, ""},
		{"another group", []step{open, func(w *wire) { w.initAnswer(wrongKE) }}, evidence.ReachedAsked, ""},
		{"another group, taken", []step{open, func(w *wire) { w.initAnswer(wrongKE) }, func(w *wire) { w.init(cookie, gcm, someKE, someNo) }, chose, wait(time.Minute)}, evidence.ReachedInit, ""},
		{"another group, not taken", []step{open, func(w *wire) { w.initAnswer(wrongKE) }, wait(5 * time.Second)}, evidence.ReachedRefused, "INVALID_KE_PAYLOAD"},
		{"a forged refusal before the answer", []step{open, func(w *wire) { w.initAnswer(none14) }, chose}, evidence.ReachedInit, ""},
		{"a forged refusal behind the answer", []step{open, chose, func(w *wire) { w.initAnswer(none14) }}, evidence.ReachedInit, ""},
		{"first encrypted message", []step{open, chose, auth(1)}, evidence.ReachedAuthSent, ""},
		{"refused", []step{open, chose, auth(1), authed(1, 8)}, evidence.ReachedRejected, ""},
		{"child refused", []step{open, chose, auth(1), authed(1, 69)}, evidence.ReachedIKE, ""},
		{"success", []step{open, chose, auth(1), authed(1, 153)}, evidence.ReachedChild, ""},
		{"answer not understood", []step{open, chose, auth(1), authed(1, 30)}, evidence.ReachedAuthSent, ""},
		{"EAP", []step{open, chose, auth(1), authed(1, 1000), auth(2)}, evidence.ReachedAuthSent, ""},
		{"EAP, its last answer a bare success", []step{open, chose, auth(1), authed(1, 1000), auth(2), authed(2, 8), auth(3), authed(3, 153)}, evidence.ReachedChild, ""},
		{"EAP, refused", []step{open, chose, auth(1), authed(1, 1000), auth(2), authed(2, 8)}, evidence.ReachedRejected, ""},
		{"intermediate exchange", []step{
			open, chose,
			func(w *wire) { w.request(w.initiator, ike.Intermediate, 1, 1200) },
			func(w *wire) { w.answer(w.initiator, ike.Intermediate, 1, 1100) },
		}, evidence.ReachedAuthSent, ""},
		{"intermediate exchange, refused", []step{
			open, chose,
			func(w *wire) { w.request(w.initiator, ike.Intermediate, 1, 1200) },
			func(w *wire) { w.answer(w.initiator, ike.Intermediate, 1, 8) },
		}, evidence.ReachedRejected, ""},
		{"answer in fragments", []step{open, chose, auth(1), func(w *wire) {
			w.part(w.initiator.other(), ike.Auth, 1, true, 1, 2)
			w.part(w.initiator.other(), ike.Auth, 1, true, 2, 2)
		}}, evidence.ReachedIKE, ""},
		{"certificates, then a rekey", []step{
			open, chose, auth(1), authed(1, 1000),
			func(w *wire) { w.wait(time.Hour).request(w.initiator, ike.CreateChildSA, 2, 150) },
			func(w *wire) { w.answer(w.initiator, ike.CreateChildSA, 2, 150) },
		}, evidence.ReachedChild, ""},
		{"success that the initiator refuses", []step{open, chose, auth(1), authed(1, 153), info(2, 8)}, evidence.ReachedRejected, ""},
		{"success, and the child is replaced at once", []step{
			open, chose, auth(1), authed(1, 153), info(2, 8),
			func(w *wire) { w.wait(time.Second).request(w.initiator.other(), ike.Informational, 0, 0) },
		}, evidence.ReachedChild, ""},
		{"success, deleted after a while", []step{open, chose, auth(1), authed(1, 153), wait(2 * time.Second), info(2, 8)}, evidence.ReachedChild, ""},
		{"child refused, and given up", []step{open, chose, auth(1), authed(1, 69), info(2, 8)}, evidence.ReachedIKE, ""},
	} {
		for _, by := range [2]side{ours, theirs} {
			t.Run(fmt.Sprintf("%s, begun by %d", tt.name, by), func(t *testing.T) {
				w := newWire(by)
				for _, s := range tt.steps {
					s(w)
					w.wait(20 * time.Millisecond)
				}
				k := w.talk()
				n := newest(t, k)
				if n.Reached != tt.want || n.Notify != tt.notify || n.Ours != (by == ours) || n.Version != 2 || n.Repeated != 1 {
					t.Errorf("%+v, want %q %q", n, tt.want, tt.notify)
				}
				if k.Attempts != 1 {
					t.Errorf("%d attempts", k.Attempts)
				}
			})
		}
	}
}

func TestRepeated(t *testing.T) {
	w := newWire(ours)
	attempt := func(n int) evidence.IKENegotiation {
		w.wait(10 * time.Second)
		w.spii[0]++
		w.begin()
		w.request(ours, ike.Auth, 1, 230)
		w.answer(ours, ike.Auth, 1, n)
		return newest(t, w.talk())
	}
	for i, tt := range []struct {
		n, want int
		forged  bool
	}{{8, 1, false}, {8, 2, false}, {8, 3, true}, {69, 1, false}, {69, 2, false}, {153, 1, false}, {8, 1, false}} {
		if tt.forged { // what the peer seems to begin does not count among what this side begins
			f := newWire(theirs)
			f.c, f.spii = w.c, ike.SPI{99}
			f.now = w.now
			f.init(gcm, someKE, someNo)
		}
		if n := attempt(tt.n); n.Repeated != tt.want || !n.Ours {
			t.Errorf("negotiation %d: %+v, want it repeated %d times", i+1, n, tt.want)
		}
	}
	if n := w.talk().Attempts; n != 8 {
		t.Errorf("%d attempts, want 8", n)
	}
}
