package ikeauth

import (
	"net/netip"
	"slices"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

const declaredSelectors = "10.1.0.0/24 === 10.2.0.0/24"

// good is what is found when all is well.
func good() evidence.IKEAuth {
	return evidence.IKEAuth{
		By: evidence.ByAgent, Stage: evidence.StageComplete, Authenticated: evidence.Yes,
		RemoteID: "b.lab.example", RemoteIDOther: evidence.No,
		ESPChosen: "aes128-sha256", Narrowed: evidence.No, Selectors: declaredSelectors, Deleted: evidence.Yes,
	}
}

// but returns good with changes.
func but(change func(*evidence.IKEAuth)) evidence.IKEAuth {
	e := good()
	change(&e)
	return e
}

// refusedChild is what is found when the child SA is refused and nothing else
// said of it.
func refusedChild(notify string, change func(*evidence.IKEAuth)) evidence.IKEAuth {
	return but(func(e *evidence.IKEAuth) {
		e.Stage, e.Notify, e.ESPChosen, e.Selectors, e.Narrowed = evidence.StageChild, notify, "", "", evidence.Unknown
		change(e)
	})
}

func stopped(stage evidence.AuthStage, notify string, authenticated evidence.Fact) evidence.IKEAuth {
	return evidence.IKEAuth{By: evidence.ByAgent, Stage: stage, Notify: notify, Authenticated: authenticated}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// negotiation is one with changes to testConfig and newResponder.
type negotiation struct {
	name string
	cfg  func(*Config)
	peer func(*responder)
	want evidence.IKEAuth
}

var cases = []negotiation{
	{name: "childless", want: good()},
	{
		name: "not childless",
		peer: func(r *responder) { r.childless = false },
		want: but(func(e *evidence.IKEAuth) { e.Rekey = evidence.Yes }),
	},
	{
		name: "perfect forward secrecy",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.esp = []string{"aes128-sha256-curve25519"} },
		want: but(func(e *evidence.IKEAuth) { e.ESPChosen = "aes128-sha256-curve25519" }),
	},
	{
		name: "another group first",
		cfg:  func(c *Config) { c.Proposals = []string{"aes128-sha256-ecp256-curve25519"} },
		want: good(),
	},
	{
		name: "another group of perfect forward secrecy first",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-ecp256-curve25519"} },
		peer: func(r *responder) { r.esp = []string{"aes128-sha256-curve25519"} },
		want: but(func(e *evidence.IKEAuth) { e.ESPChosen = "aes128-sha256-curve25519" }),
	},
	{name: "behind NAT", peer: func(r *responder) { r.nat = true }, want: good()},
	{name: "port 500 is dead", peer: func(r *responder) { r.open4500 = true }, want: good()},
	{
		name: "nothing declared",
		cfg: func(c *Config) {
			*c = Config{Target: c.Target, LocalID: c.LocalID, PSK: c.PSK}
		},
		peer: func(r *responder) { r.proposals = []string{"aes256-sha512-modp2048"} },
		want: but(func(e *evidence.IKEAuth) { e.RemoteIDOther, e.Narrowed = evidence.Unknown, evidence.Unknown }),
	},
	{
		name: "nothing declared, not childless",
		cfg: func(c *Config) {
			*c = Config{Target: c.Target, LocalID: c.LocalID, PSK: c.PSK}
		},
		peer: func(r *responder) { r.childless = false },
		want: but(func(e *evidence.IKEAuth) { e.RemoteIDOther, e.Narrowed = evidence.Unknown, evidence.Unknown }),
	},
	{
		name: "no own identity",
		cfg:  func(c *Config) { c.LocalID = "" },
		peer: func(r *responder) { r.remoteID = "203.0.113.2" },
		want: good(),
	},

	// IKE_SA_INIT.
	{
		name: "IKE proposal",
		peer: func(r *responder) { r.proposals = []string{"aes256-sha256-curve25519"} },
		want: stopped(evidence.StageInit, "NO_PROPOSAL_CHOSEN", evidence.Unknown),
	},
	{
		name: "IKE group, not declared",
		peer: func(r *responder) {
			r.tamper = func(r *responder, m ike.Message, _ []byte) [][]byte {
				return answers(m, ike.Notify{Type: ike.InvalidKEPayload, Data: []byte{0, 14}}.Payload())
			}
		},
		want: stopped(evidence.StageInit, "INVALID_KE_PAYLOAD", evidence.Unknown),
	},
	{
		name: "cookie",
		peer: func(r *responder) {
			r.tamper = func(r *responder, m ike.Message, _ []byte) [][]byte {
				return answers(m, ike.Notify{Type: ike.Cookie, Data: []byte("cookie")}.Payload())
			}
		},
		want: stopped(evidence.StageInit, "COOKIE", evidence.Unknown),
	},
	{
		name: "silent",
		peer: func(r *responder) { r.tamper = silentAt(ike.SAInit) },
		want: stopped(evidence.StageInit, "", evidence.Unknown),
	},

	// IKE_AUTH.
	{
		name: "wrong key",
		peer: func(r *responder) { r.psk = "another pre-shared key" },
		want: stopped(evidence.StageAuth, "AUTHENTICATION_FAILED", evidence.No),
	},
	{
		name: "own identity unknown to the peer",
		peer: func(r *responder) { r.remoteID = "c.lab.example" },
		want: stopped(evidence.StageAuth, "AUTHENTICATION_FAILED", evidence.No),
	},
	{
		name: "another identity at the peer",
		peer: func(r *responder) { r.id = "c.lab.example" },
		want: but(func(e *evidence.IKEAuth) { e.RemoteID, e.RemoteIDOther = "c.lab.example", evidence.Yes }),
	},
	{
		name: "silent after IKE_AUTH",
		peer: func(r *responder) { r.tamper = silentAt(ike.Auth) },
		want: but(func(e *evidence.IKEAuth) {
			*e = stopped(evidence.StageAuth, "", evidence.Unknown)
			e.Deleted = evidence.Yes // what the peer never told of
		}),
	},

	{
		name: "gives all up for the child", // as OpenIKED does
		peer: func(r *responder) {
			r.childless = false
			r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
				if m.Exchange == ike.Auth {
					return sealed(r, m, ike.Notify{Type: ike.NoProposalChosen}.Payload())
				}
				return [][]byte{answer}
			}
		},
		want: but(func(e *evidence.IKEAuth) {
			*e = stopped(evidence.StageChild, "NO_PROPOSAL_CHOSEN", evidence.Unknown)
			e.Deleted = evidence.Yes
		}),
	},

	// The child SA.
	{
		name: "selectors",
		peer: func(r *responder) { r.tsi, r.tsr = "10.9.0.0/24", "10.2.0.0/16" },
		want: refusedChild("TS_UNACCEPTABLE", func(e *evidence.IKEAuth) {
			e.OtherSelectors, e.Selectors, e.ESPChosen = evidence.Yes, "10.9.0.0/24 === 10.2.0.0/16", "aes128-sha256"
		}),
	},
	{
		name: "selectors, not childless",
		peer: func(r *responder) { r.childless, r.tsr = false, "10.9.0.0/24" },
		want: refusedChild("TS_UNACCEPTABLE", func(e *evidence.IKEAuth) {
			e.OtherSelectors, e.Selectors, e.ESPChosen = evidence.Yes, "10.1.0.0/24 === 10.9.0.0/24", "aes128-sha256"
		}),
	},
	{
		name: "narrowed",
		peer: func(r *responder) { r.tsi = "10.1.0.128/25" },
		want: but(func(e *evidence.IKEAuth) {
			e.Narrowed, e.Selectors = evidence.Yes, "10.1.0.128/25 === 10.2.0.0/24"
		}),
	},
	{
		name: "several subnets",
		cfg:  func(c *Config) { c.LocalSubnets = prefixes("10.1.0.0/24", "10.3.0.0/24") },
		want: but(func(e *evidence.IKEAuth) { e.Narrowed = evidence.Yes }),
	},
	{
		name: "single pair",
		cfg:  func(c *Config) { c.LocalSubnets = prefixes("10.1.0.0/24", "10.3.0.0/24") },
		peer: func(r *responder) {
			r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
				p, _ := m.First(ike.PayloadTSi)
				if list, _ := ike.ParseTS(p.Body); m.Exchange == ike.CreateChildSA && len(list) > 1 {
					answer, _ = r.sa().keys.Seal(false, ike.Header{Exchange: m.Exchange, Flags: ike.FlagResponse, MessageID: m.MessageID},
						[]ike.Payload{ike.Notify{Type: ike.SinglePairRequired}.Payload()})
				}
				return [][]byte{answer}
			}
		},
		want: refusedChild("SINGLE_PAIR_REQUIRED", func(e *evidence.IKEAuth) {
			e.OtherSelectors, e.Selectors, e.ESPChosen = evidence.Yes, declaredSelectors, "aes128-sha256"
		}),
	},
	{
		name: "ESP",
		peer: func(r *responder) { r.esp = []string{"aes256gcm16"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.ESPChosen, e.Selectors = evidence.No, evidence.Yes, "aes256gcm16", declaredSelectors
		}),
	},
	{
		name: "ESP, not childless, with perfect forward secrecy",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha1"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherESP, e.ESPChosen, e.Selectors = evidence.Yes, "aes128-sha1", declaredSelectors
		}),
	},
	{
		name: "extended sequence numbers",
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha256-esn"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherESP, e.ESPChosen, e.Selectors = evidence.Yes, "aes128-sha256-esn", declaredSelectors
		}),
	},
	{
		name: "mode undeclared",
		cfg:  func(c *Config) { c.ESPMode = "" },
		peer: func(r *responder) { r.transport = true },
		want: but(func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.Narrowed = evidence.No, evidence.No, evidence.Unknown
		}),
	},
	{
		name: "subnets undeclared, and the peer takes none but its own",
		cfg:  func(c *Config) { c.LocalSubnets, c.RemoteSubnets = nil, nil },
		peer: func(r *responder) { r.tamper = refuseChild(ike.TSUnacceptable) },
		want: refusedChild("", func(e *evidence.IKEAuth) {
			e.CannotLook = "negotiate with 198.51.100.2: the peer accepts none but its own traffic selectors: declare local_subnets and remote_subnets"
		}),
	},
	{
		name: "one side's subnets undeclared",
		cfg:  func(c *Config) { c.RemoteSubnets = nil },
		want: but(func(e *evidence.IKEAuth) { e.Narrowed = evidence.Unknown }),
	},
	{
		name: "mode",
		peer: func(r *responder) { r.transport = true },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.OtherMode = evidence.No, evidence.No, evidence.Yes
			e.ESPChosen, e.Selectors = "aes128-sha256", declaredSelectors
		}),
	},
	{
		name: "mode, not childless",
		cfg:  func(c *Config) { c.ESPMode = "transport" },
		peer: func(r *responder) { r.childless = false },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherESP, e.OtherMode = evidence.No, evidence.Yes
			e.ESPChosen, e.Selectors = "aes128-sha256", declaredSelectors
		}),
	},
	{
		name: "mode ignored", // as strongSwan does
		cfg:  func(c *Config) { c.ESPMode = "transport" },
		peer: func(r *responder) {
			r.transport = true
			r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
				if m.Exchange != ike.CreateChildSA {
					return [][]byte{answer}
				}
				opened, _ := r.sa().keys.Open(answer)
				list := slices.DeleteFunc(opened.Payloads, func(p ike.Payload) bool { return p.Type == ike.PayloadNotify })
				answer, _ = r.sa().keys.Seal(false, opened.Header, list)
				return [][]byte{answer}
			}
		},
		want: but(func(e *evidence.IKEAuth) { e.Stage, e.OtherMode = evidence.StageChild, evidence.Yes }),
	},
	{
		name: "all of it other",
		peer: func(r *responder) { r.transport, r.esp = true, []string{"aes256gcm16"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.OtherMode, e.OtherSelectors = evidence.No, evidence.No, evidence.No, evidence.No
		}),
	},
	{
		name: "silent after CREATE_CHILD_SA",
		peer: func(r *responder) { r.tamper = silentAt(ike.CreateChildSA) },
		want: refusedChild("", func(*evidence.IKEAuth) {}),
	},
	{
		name: "no more SAs",
		peer: func(r *responder) { r.tamper = refuseChild(ike.NoAdditionalSAs) },
		want: refusedChild("NO_ADDITIONAL_SAS", func(*evidence.IKEAuth) {}),
	},

	// Perfect forward secrecy.
	{
		name: "peer without perfect forward secrecy",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.ESPChosen, e.Selectors = evidence.Yes, "aes128-sha256", declaredSelectors
		}),
	},
	{
		name: "peer with perfect forward secrecy",
		peer: func(r *responder) { r.esp = []string{"aes128-sha256-ecp256"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup, e.ESPChosen, e.Selectors = evidence.Yes, "ecp256", "aes128-sha256-ecp256", declaredSelectors
		}),
	},
	{
		name: "peer with another group",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.esp = []string{"aes128-sha256-ecp384"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup, e.ESPChosen, e.Selectors = evidence.Yes, "ecp384", "aes128-sha256-ecp384", declaredSelectors
		}),
	},
	{
		name: "peer asks for another group",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) {
			r.esp = []string{"aes128-sha256-ecp384"}
			refused := false
			r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
				if m.Exchange == ike.CreateChildSA && !refused {
					refused = true
					return sealed(r, m, ike.Notify{Type: ike.InvalidKEPayload, Data: []byte{0, 20}}.Payload())
				}
				return [][]byte{answer}
			}
		},
		want: refusedChild("INVALID_KE_PAYLOAD", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup, e.ESPChosen, e.Selectors = evidence.Yes, "ecp384", "aes128-sha256-ecp384", declaredSelectors
		}),
	},
	{
		name: "peer asks for a group that is not for us",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.tamper = refuseChild(ike.InvalidKEPayload, 0, 28) },
		want: refusedChild("INVALID_KE_PAYLOAD", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup = evidence.Yes, "ecp256bp"
		}),
	},
	{
		name: "peer with another group, and malformed to it",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.esp, r.syntax = []string{"aes128-sha256-modp1024"}, true },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup, e.ESPChosen, e.Selectors = evidence.Yes, "modp1024", "aes128-sha256-modp1024", declaredSelectors
		}),
	},
	{
		name: "peer with perfect forward secrecy, to which ours is malformed",
		peer: func(r *responder) { r.esp, r.syntax = []string{"aes128-sha256-ecp521"}, true },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.PFSGroup, e.ESPChosen, e.Selectors = evidence.Yes, "ecp521", "aes128-sha256-ecp521", declaredSelectors
		}),
	},
	{
		name: "every group declared, and the ESP refused",
		cfg:  func(c *Config) { c.ESPProposals = []string{everyGroup()} },
		peer: func(r *responder) { r.esp = []string{"aes256gcm16"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.OtherMode, e.OtherSelectors = evidence.No, evidence.No, evidence.No, evidence.No
		}),
	},
	{
		name: "every group declared, and the peer without perfect forward secrecy",
		cfg:  func(c *Config) { c.ESPProposals = []string{everyGroup()} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.ESPChosen, e.Selectors = evidence.Yes, "aes128-sha256", declaredSelectors
		}),
	},
	{
		name: "every group declared, and none for a rekeying",
		cfg:  func(c *Config) { c.ESPProposals = []string{everyGroup()} },
		peer: func(r *responder) {
			r.childless, r.tamper = false, refuseChild(ike.NoProposalChosen)
		},
		want: but(func(e *evidence.IKEAuth) { e.Rekey, e.OtherPFS = evidence.No, evidence.No }),
	},
	{
		name: "rekey",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha256-curve25519"} },
		want: but(func(e *evidence.IKEAuth) { e.Rekey = evidence.Yes }),
	},
	{
		name: "rekey with another group",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519"} },
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha256-ecp256"} },
		want: but(func(e *evidence.IKEAuth) {
			e.Rekey, e.OtherPFS, e.PFSGroup, e.ESPChosen = evidence.No, evidence.Yes, "ecp256", "aes128-sha256-ecp256"
		}),
	},
	{
		name: "rekey without a group, which the peer wants",
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha256-ecp256"} },
		want: but(func(e *evidence.IKEAuth) {
			e.Rekey, e.OtherPFS, e.PFSGroup, e.ESPChosen = evidence.No, evidence.Yes, "ecp256", "aes128-sha256-ecp256"
		}),
	},
}

// everyGroup returns a proposal with every group that there is.
func everyGroup() string {
	text := "aes128-sha256"
	for _, g := range widePFS() {
		text += "-" + groupName(g)
	}
	return text
}

// answers returns an unprotected answer to IKE_SA_INIT.
func answers(request ike.Message, payloads ...ike.Payload) [][]byte {
	h := ike.Header{SPIi: request.SPIi, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse}
	return [][]byte{ike.Message{Header: h, Payloads: payloads}.Append(nil)}
}

// sealed returns a protected answer.
func sealed(r *responder, request ike.Message, payloads ...ike.Payload) [][]byte {
	h := ike.Header{Exchange: request.Exchange, Flags: ike.FlagResponse, MessageID: request.MessageID}
	b, err := r.sa().keys.Seal(false, h, payloads)
	if err != nil {
		r.t.Error(err)
	}
	return [][]byte{b}
}

type tamper = func(*responder, ike.Message, []byte) [][]byte

func silentAt(exchange ike.ExchangeType) tamper {
	return func(_ *responder, m ike.Message, answer []byte) [][]byte {
		if m.Exchange == exchange {
			return nil
		}
		return [][]byte{answer}
	}
}

func refuseChild(t ike.NotifyType, data ...byte) tamper {
	return func(r *responder, m ike.Message, answer []byte) [][]byte {
		if m.Exchange == ike.CreateChildSA {
			return sealed(r, m, ike.Notify{Type: t, Data: data}.Payload())
		}
		return [][]byte{answer}
	}
}
