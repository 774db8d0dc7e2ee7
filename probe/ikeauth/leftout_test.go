package ikeauth

import (
	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// leftOutCases are of what is declared and not offered, because vpnprobe does
// not speak it.
var leftOutCases = []negotiation{
	{
		name: "IKE proposal, one group of which is left out",
		cfg:  func(c *Config) { c.Proposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) { r.proposals = []string{"aes128-sha256-modp2048"} },
		want: but(func(e *evidence.IKEAuth) {
			*e = stopped(evidence.StageInit, "NO_PROPOSAL_CHOSEN", evidence.Unknown)
			e.CannotLook = "negotiate with 198.51.100.2: IKE proposal aes128-sha256-curve25519-ecp256bp: vpnprobe does not speak ecp256bp"
		}),
	},
	{
		name: "IKE proposal, one group of which is left out and wanted",
		cfg:  func(c *Config) { c.Proposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) {
			r.tamper = func(_ *responder, m ike.Message, _ []byte) [][]byte {
				return answers(m, ike.Notify{Type: ike.InvalidKEPayload, Data: []byte{0, 28}}.Payload())
			}
		},
		want: but(func(e *evidence.IKEAuth) {
			*e = stopped(evidence.StageInit, "INVALID_KE_PAYLOAD", evidence.Unknown)
			e.CannotLook = "negotiate with 198.51.100.2: IKE proposal aes128-sha256-curve25519-ecp256bp: vpnprobe does not speak ecp256bp"
		}),
	},
	{
		name: "left out, and of no consequence",
		cfg: func(c *Config) {
			c.Proposals = []string{"aes128-sha256-curve25519-ecp256bp", "sm4-sm3-modp2048"}
			c.ESPProposals = []string{"aes128-sha256", "sm4-sm3"}
		},
		want: good(),
	},
	{
		name: "left out of IKE, and the ESP refused",
		cfg:  func(c *Config) { c.Proposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) { r.esp = []string{"aes256gcm16"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherPFS, e.OtherESP, e.ESPChosen, e.Selectors = evidence.No, evidence.Yes, "aes256gcm16", declaredSelectors
		}),
	},
	{
		name: "left out of IKE, and the undeclared ESP refused",
		cfg: func(c *Config) {
			c.Proposals, c.ESPProposals = []string{"aes128-sha256-curve25519-ecp256bp"}, nil
		},
		peer: func(r *responder) { r.tamper = refuseChild(ike.NoProposalChosen) },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherMode, e.OtherSelectors = evidence.No, evidence.No
		}),
	},
	{
		name: "ESP, one proposal of which is left out",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256", "sm4-sm3"} },
		peer: func(r *responder) { r.esp = []string{"aes256gcm16"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherMode, e.OtherSelectors = evidence.No, evidence.No
			e.CannotLook = "negotiate with 198.51.100.2: ESP proposal sm4-sm3: vpnprobe does not know sm4"
		}),
	},
	{
		name: "ESP, one group of which is left out",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) { r.esp = []string{"aes128-sha256-ecp256"} },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherMode, e.OtherSelectors = evidence.No, evidence.No
			e.CannotLook = "negotiate with 198.51.100.2: ESP proposal aes128-sha256-curve25519-ecp256bp: vpnprobe does not speak ecp256bp"
		}),
	},
	{
		name: "ESP, one group of which is left out and wanted",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) { r.tamper = refuseChild(ike.InvalidKEPayload, 0, 28) },
		want: refusedChild("INVALID_KE_PAYLOAD", func(e *evidence.IKEAuth) {
			e.PFSGroup = "ecp256bp"
			e.CannotLook = "negotiate with 198.51.100.2: ESP proposal aes128-sha256-curve25519-ecp256bp: vpnprobe does not speak ecp256bp"
		}),
	},
	{
		name: "left out, and the mode explains it",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256", "sm4-sm3"} },
		peer: func(r *responder) { r.transport = true },
		want: refusedChild("NO_PROPOSAL_CHOSEN", func(e *evidence.IKEAuth) {
			e.OtherMode, e.ESPChosen, e.Selectors = evidence.Yes, "aes128-sha256", declaredSelectors
		}),
	},
	{
		name: "rekey, one group of which is left out",
		cfg:  func(c *Config) { c.ESPProposals = []string{"aes128-sha256-curve25519-ecp256bp"} },
		peer: func(r *responder) { r.childless, r.esp = false, []string{"aes128-sha256-ecp256"} },
		want: good(),
	},
}
