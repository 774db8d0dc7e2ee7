package ikeauth

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// Whatever one answer is replaced by, the negotiation ends in time, without an
// SA left at the peer.
func TestHostileAnswers(t *testing.T) {
	var other []byte
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t)
		r.tamper = func(_ *responder, m ike.Message, answer []byte) [][]byte {
			if m.Exchange == ike.CreateChildSA {
				other = answer // of another SA
			}
			return [][]byte{answer}
		}
		r.run(t.Context(), testConfig())
	})
	mangle := map[string]func(r *responder, m ike.Message, answer []byte) [][]byte{
		"garbage": func(_ *responder, _ ike.Message, answer []byte) [][]byte {
			return [][]byte{{}, {0xff}, bytes.Repeat([]byte{0xff}, 2000), answer[:len(answer)-1], append(bytes.Clone(answer), 0)}
		},
		"flipped": func(_ *responder, _ ike.Message, answer []byte) [][]byte {
			answer = bytes.Clone(answer)
			answer[len(answer)-20] ^= 1
			return [][]byte{answer}
		},
		"reflected": func(r *responder, _ ike.Message, _ []byte) [][]byte { return r.raw[len(r.raw)-1:] },
		"another SA's": func(*responder, ike.Message, []byte) [][]byte {
			return [][]byte{other}
		},
		"replayed": func(r *responder, m ike.Message, _ []byte) [][]byte {
			if sa := r.sa(); m.Exchange != ike.SAInit {
				return [][]byte{sa.response}
			}
			return nil
		},
		"unprotected refusal": func(r *responder, m ike.Message, _ []byte) [][]byte {
			h := m.Header
			h.Flags, h.SPIr = ike.FlagResponse, r.sa().spir
			return [][]byte{ike.Message{Header: h, Payloads: []ike.Payload{ike.Notify{Type: ike.AuthenticationFailed}.Payload()}}.Append(nil)}
		},
		"empty": func(r *responder, m ike.Message, _ []byte) [][]byte {
			if m.Exchange == ike.SAInit {
				return answers(m)
			}
			return sealed(r, m)
		},
		"unknown payloads": func(r *responder, m ike.Message, _ []byte) [][]byte {
			p := ike.Payload{Type: 99, Critical: true, Body: []byte("?")}
			if m.Exchange == ike.SAInit {
				return answers(m, p)
			}
			return sealed(r, m, p)
		},
		"empty payloads": func(r *responder, m ike.Message, _ []byte) [][]byte {
			var list []ike.Payload
			for typ := ike.PayloadSA; typ <= ike.PayloadTSr; typ++ {
				list = append(list, ike.Payload{Type: typ})
			}
			if m.Exchange == ike.SAInit {
				return answers(m, list...)
			}
			return sealed(r, m, list...)
		},
		"fragments": func(r *responder, m ike.Message, answer []byte) [][]byte {
			var list [][]byte
			for i := range byte(200) {
				h := m.Header
				h.Flags, h.SPIr = ike.FlagResponse, r.sa().spir
				body := append([]byte{0, i, 0, 200}, bytes.Repeat([]byte{i}, 64)...)
				list = append(list, ike.Message{Header: h, Payloads: []ike.Payload{{Type: ike.PayloadFragment, Body: body}}}.Append(nil))
			}
			return append(list, answer)
		},
	}
	for name, f := range mangle {
		for _, at := range []ike.ExchangeType{ike.SAInit, ike.Auth, ike.CreateChildSA, ike.Informational} {
			t.Run(name+" at "+at.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newResponder(t)
					r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
						if m.Exchange == at && answer != nil {
							return f(r, m, answer)
						}
						return [][]byte{answer}
					}
					begun := time.Now()
					got := r.run(t.Context(), testConfig())
					if d := time.Since(begun); d > DefaultTimeout+grace {
						t.Errorf("took %v", d)
					}
					r.check()
					if name == "fragments" {
						if got.Stage != evidence.StageComplete {
							t.Errorf("forged fragments spoilt it: %+v", got)
						}
						return
					}
					if (at != ike.Informational) == (got.Stage == evidence.StageComplete) {
						t.Errorf("got %+v", got)
					}
				})
			})
		}
	}
}

// A peer that shows another key than ours is not authenticated.
func TestWrongAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t)
		r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
			if m.Exchange != ike.Auth {
				return [][]byte{answer}
			}
			id := ike.IdentityOf(r.id).Payload(ike.PayloadIDr)
			data := r.sa().keys.AuthPSK(false, []byte("another key"), r.sa().response, r.sa().ni, id.Body)
			return sealed(r, m, id, ike.Authentication{Method: ike.AuthSharedKey, Data: data}.Payload())
		}
		got := r.run(t.Context(), testConfig())
		want := stopped(evidence.StageAuth, "", evidence.No)
		want.Deleted = evidence.Yes
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(evidence.Opt[time.Time]{})); diff != "" {
			t.Error(diff)
		}
		r.check()
	})
}

func TestOtherAuthMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t)
		r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
			if m.Exchange != ike.Auth {
				return [][]byte{answer}
			}
			return sealed(r, m, ike.IdentityOf(r.id).Payload(ike.PayloadIDr), ike.Authentication{Method: 14, Data: []byte("signature")}.Payload())
		}
		got := r.run(t.Context(), testConfig())
		if got.Authenticated != evidence.Unknown || got.Stage != evidence.StageAuth || !strings.Contains(got.CannotLook, "pre-shared key") {
			t.Errorf("got %+v", got)
		}
		r.check()
	})
}

// However early the caller gives up, no SA stays, and Run returns soon.
func TestInterrupted(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		for after := time.Duration(0); after < 400*time.Millisecond; after += 5 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				r := newResponder(t)
				r.esp = []string{"aes256gcm16"} // more exchanges
				if lossy {
					// Every message has to be sent twice.
					count := 0
					r.tamper = func(_ *responder, m ike.Message, answer []byte) [][]byte {
						if count++; count%2 == 1 {
							return nil
						}
						return [][]byte{answer}
					}
					after *= 20
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun := time.Now()
				time.AfterFunc(after, cancel)
				got := r.run(ctx, testConfig())
				if d := time.Since(begun); d > after+grace {
					t.Errorf("%v: took %v", after, d)
				}
				if got.Stage == evidence.StageChild && got.OtherESP == evidence.Unknown && got.CannotLook == "" {
					t.Errorf("%v: says nothing of the interruption: %+v", after, got)
				}
				r.check()
			})
		}
	}
}

// A defect of ours leaves no SA at the peer either, and shows no key.
func TestPanic(t *testing.T) {
	for _, value := range []any{testPSK, Key(testPSK), errors.New(testPSK), nil} {
		for _, at := range []ike.ExchangeType{ike.SAInit, ike.Auth, ike.CreateChildSA, ike.Informational} {
			synctest.Test(t, func(t *testing.T) {
				r := newResponder(t)
				done := false
				r.tamper = func(_ *responder, m ike.Message, answer []byte) [][]byte {
					if m.Exchange == at && !done {
						done = true
						panic(value)
					}
					return [][]byte{answer}
				}
				got := r.run(t.Context(), testConfig())
				if !strings.Contains(got.CannotLook, "198.51.100.2: a defect of vpnprobe") {
					t.Errorf("%T at %v: got %+v", value, at, got)
				}
				if asked := at == ike.Auth || at == ike.CreateChildSA; asked != (got.Deleted == evidence.Yes) {
					t.Errorf("%T at %v: deleted %v", value, at, got.Deleted)
				}
				shows(t, got)
				r.check()
			})
		}
	}
}

// A request that was lost is sent again before the DELETE, or the peer would
// not take that.
func TestLostBeforeDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t)
		cut := &cutConn{responder: r}
		cfg := testConfig()
		cfg.Timeout = DefaultTimeout
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cut.lose = func(m ike.Message) bool {
			if m.Exchange == ike.CreateChildSA && ctx.Err() == nil {
				time.AfterFunc(100*time.Millisecond, cancel)
				return true
			}
			return false
		}
		got := negotiate(ctx, &cfg, newLink(cut, simLocal, &cfg), evidence.IKEAuth{})
		if got.Deleted != evidence.Yes {
			t.Errorf("got %+v", got)
		}
		r.check()
	})
}

// cutConn loses what is sent to a responder.
type cutConn struct {
	*responder
	lose func(m ike.Message) bool
}

func (c *cutConn) Send(b []byte, to netip.AddrPort) error {
	if m, err := ike.Parse(b); err == nil && c.lose(m) {
		return nil
	}
	return c.responder.Send(b, to)
}

// The peer's own requests come in between.
func TestPeerRequests(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request func(r *responder) [][]byte
		answers int
		gone    bool
	}{
		{"liveness", func(r *responder) [][]byte { return [][]byte{r.request(r.sa(), ike.Informational, 0)} }, 1, false},
		{"liveness twice", func(r *responder) [][]byte {
			b := r.request(r.sa(), ike.Informational, 0)
			return [][]byte{b, b, r.request(r.sa(), ike.Informational, 1)}
		}, 3, false},
		{"out of order", func(r *responder) [][]byte {
			return [][]byte{r.request(r.sa(), ike.Informational, 7), r.request(r.sa(), ike.Informational, 0xffffffff)}
		}, 0, false},
		{"child", func(r *responder) [][]byte { return [][]byte{r.request(r.sa(), ike.CreateChildSA, 0)} }, 0, false},
		{"delete child", func(r *responder) [][]byte {
			d := ike.Delete{Protocol: ike.ProtocolESP, SPISize: 4, SPIs: [][]byte{{1, 2, 3, 4}}}
			return [][]byte{r.request(r.sa(), ike.Informational, 0, d.Payload())}
		}, 1, false},
		{"delete", func(r *responder) [][]byte {
			return [][]byte{r.request(r.sa(), ike.Informational, 0, ike.Delete{Protocol: ike.ProtocolIKE}.Payload())}
		}, 1, true},
	} {
		for _, silent := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newResponder(t)
					done := false
					r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
						if m.Exchange != ike.CreateChildSA || done {
							return [][]byte{answer}
						}
						done = true
						if tt.gone {
							r.sa().up = false
						}
						list := tt.request(r)
						if !silent {
							list = append(list, answer)
						}
						return list
					}
					got := r.run(t.Context(), testConfig())
					if n := len(r.sa().answers); n != tt.answers {
						t.Errorf("%d answers, want %d", n, tt.answers)
					}
					if got.Deleted != evidence.Yes {
						t.Errorf("got %+v", got)
					}
					if tt.gone != (got.Stage == evidence.StageChild) {
						t.Errorf("got %+v", got)
					}
					r.check()
				})
			})
		}
	}
}

// What we sent is no request of the peer's, though it is authentic.
func TestReflectedRequest(t *testing.T) {
	offer, err := offerOf(ike.ProtocolIKE, []string{"aes128-sha256-curve25519"})
	if err != nil {
		t.Fatal(err)
	}
	suite, err := ikecrypto.NewSuite(offer[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, initiator := range []bool{true, false} {
		r := newResponder(t)
		cfg := testConfig()
		s := &session{link: newLink(r, simLocal, &cfg), spii: ike.SPI{1}, spir: ike.SPI{2}}
		s.keys = suite.Keys([]byte{1}, []byte{2}, []byte{3}, s.spii, s.spir)
		r.sas[s.spii] = &simSA{spir: s.spir, keys: s.keys}
		h := ike.Header{Exchange: ike.Informational}
		b, err := s.keys.Seal(initiator, h, []ike.Payload{ike.Delete{Protocol: ike.ProtocolIKE}.Payload()})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.receive(b); ok || s.peer.deleted == initiator {
			t.Errorf("sent by the initiator %v: response %v, deleted %v", initiator, ok, s.peer.deleted)
		}
	}
}

// Whatever is in an answer, authentic or not, reading it does not panic.
func FuzzAnswer(f *testing.F) {
	kx, err := ikecrypto.NewKeyExchange(ike.GroupCurve25519)
	if err != nil {
		f.Fatal(err)
	}
	offer, err := offerOf(ike.ProtocolIKE, []string{"aes128-sha256-curve25519"})
	if err != nil {
		f.Fatal(err)
	}
	c := child{proposals: wide(), tsi: selectors(nil, simPeer), tsr: selectors(nil, simPeer)}
	id := ike.IdentityOf("b.lab.example").Payload(ike.PayloadIDr)
	for _, list := range [][]ike.Payload{
		{ike.SA(offer...), ike.KE(kx.Group(), kx.Public()), ike.Nonce(make([]byte, 32))},
		{id, ike.Authentication{Method: ike.AuthSharedKey, Data: make([]byte, 32)}.Payload()},
		c.payloads(nil),
		{ike.Notify{Type: ike.InvalidKEPayload, Data: []byte{0, 14}}.Payload()},
		{ike.Delete{Protocol: ike.ProtocolIKE}.Payload()},
	} {
		f.Add(uint8(list[0].Type), ike.AppendPayloads(nil, list))
	}
	suite, err := ikecrypto.NewSuite(offer[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, first uint8, chain []byte) {
		s := &session{cfg: &Config{}, link: &link{local: simLocal, peer: simPeer, port: portIKE}, spii: ike.SPI{1}, request: []byte{1}, nonce: []byte{2}}
		m := ike.Header{SPIi: s.spii, SPIr: ike.SPI{2}, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse, NextPayload: ike.PayloadType(first)}
		m.Length = uint32(ike.HeaderLen + len(chain))
		s.initAnswer(append(m.Append(nil), chain...), offer, kx)
		payloads, err := ike.ParsePayloads(ike.PayloadType(first), chain)
		if err != nil {
			return
		}
		inner := ike.Message{Payloads: payloads}
		if a := c.answer(inner); a.accepted {
			_, _ = notation(a.chosen), a.selectors()
			sameSelectors(a.tsi, c.tsi)
		}
		s.keys = suite.Keys([]byte{1}, s.nonce, s.nonce, s.spii, m.SPIr)
		s.verify(inner)
	})
}
