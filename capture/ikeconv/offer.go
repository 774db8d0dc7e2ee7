package ikeconv

import (
	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// offer notes the proposals of the first message of a negotiation.
func (c *Conversation) offer(n *negotiation, list []ike.Payload) {
	o := evidence.WireOffer{Ours: n.Ours, Version: n.Version, Time: n.Last}
	if n.Version == ike.V1.Major() {
		if p, ok := first(list, ike.PayloadSAV1); !ok || !readOfferV1(&o, p) {
			return
		}
	} else if p, ok := first(list, ike.PayloadSA); !ok || !readOffer(&o, p) {
		return
	}
	n.offer, n.offered, n.offerChanged = o, true, c.serial
}

// answerOffer notes whether the responder took an offer.
func (c *Conversation) answerOffer(n *negotiation, f evidence.Fact) {
	n.offer.Answered, n.offerChanged = f, c.serial
}

// readOffer reads the proposals of IKEv2.
func readOffer(o *evidence.WireOffer, p ike.Payload) bool {
	proposals, err := ike.ParseSA(p.Body)
	if err != nil {
		return false
	}
	var several values
	var texts []string
	for _, p := range proposals {
		var v values
		for _, t := range p.Transforms {
			if i, ok := attributeOf[t.Type]; ok && t.ID != 0 {
				v.add(i, [2]uint16{t.ID, t.KeyLength})
			}
		}
		several.merge(v)
		texts = append(texts, text(p))
	}
	o.Proposals, o.Text, o.Multiple = len(proposals), joined(texts), several.names(len(proposals))
	return true
}

// readOfferV1 reads the proposals of IKEv1, whose transforms are whole sets of
// algorithms: each counts as a proposal.
func readOfferV1(o *evidence.WireOffer, p ike.Payload) bool {
	sa, err := ike.ParseSAV1(p.Body)
	if err != nil {
		return false
	}
	var several values
	var texts []string
	for _, p := range sa.Proposals {
		var v values
		for _, t := range p.Transforms {
			v.addV1(t.Attributes)
			texts = append(texts, textV1(t))
		}
		several.merge(v)
	}
	o.Proposals, o.Text, o.Multiple = len(texts), joined(texts), several.names(len(sa.Proposals))
	return len(texts) > 0
}

// attributes are the names of what an offer may have several of.
var attributes = [4]string{"encryption", "integrity", "prf", "dh_group"}

var attributeOf = map[ike.TransformType]int{
	ike.TransformEncryption: 0, ike.TransformIntegrity: 1, ike.TransformPRF: 2, ike.TransformKeyExchange: 3,
}

// values holds of each attribute the first value, if any, and whether there
// was another.
type values struct {
	first [4][2]uint16
	any   [4]bool
	more  [4]bool
}

func (v *values) add(i int, value [2]uint16) {
	v.more[i] = v.more[i] || v.any[i] && v.first[i] != value
	if !v.any[i] {
		v.first[i], v.any[i] = value, true
	}
}

func (v *values) addV1(list []ike.Attribute) {
	encryption := [2]uint16{}
	for _, a := range list {
		switch {
		case a.Data != nil:
		case a.Type == ike.AttrV1Encryption:
			encryption[0] = a.Value
		case a.Type == ike.AttrV1KeyLength:
			encryption[1] = a.Value
		case a.Type == ike.AttrV1Hash:
			v.add(1, [2]uint16{a.Value})
		case a.Type == ike.AttrV1PRF:
			v.add(2, [2]uint16{a.Value})
		case a.Type == ike.AttrV1Group:
			v.add(3, [2]uint16{a.Value})
		}
	}
	v.add(0, encryption)
}

// merge notes what another proposal has several of.
func (v *values) merge(o values) {
	for i := range v.more {
		v.more[i] = v.more[i] || o.more[i]
	}
}

func (v *values) names(proposals int) []string {
	var list []string
	for i, more := range v.more {
		if more {
			list = append(list, attributes[i])
		}
	}
	if proposals > 1 {
		list = append(list, "proposal")
	}
	return list
}
