package ladder

import (
	"encoding/hex"
	"strings"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// features takes note of what the peer tells of itself in its answer to a
// complete request.
func (r *run) features(a answer) {
	f := &r.out.Features
	for _, n := range notifies(a.message) {
		if n.Type == ike.Redirect {
			f.Redirect = redirectTo(n.Data)
		}
	}
	if a.Answer != evidence.AnswerAccepted || a.Reused {
		return
	}
	f.VendorIDs = []string{}
	for _, p := range a.message.Payloads {
		if p.Type == ike.PayloadVendorID || p.Type == ike.PayloadVendorIDV1 {
			featuresOf{f}.addVendor(p.Body)
		}
	}
	if a.of(ike.V2) {
		r.featuresV2(a.message)
	}
}

func (r *run) featuresV2(m ike.Message) {
	f := &r.out.Features
	here := ikecrypto.NATDetection(m.SPIi, m.SPIr, r.conn.Local())
	there := ikecrypto.NATDetection(m.SPIi, m.SPIr, r.conn.Remote(r.port))
	f.Fragmentation, f.Childless = evidence.No, evidence.No
	f.NATHere, f.NATThere = evidence.Unknown, evidence.Unknown
	for _, n := range notifies(m) {
		switch n.Type {
		case ike.FragmentationSupported:
			f.Fragmentation = evidence.Yes
		case ike.ChildlessSupported:
			f.Childless = evidence.Yes
		case ike.NATDetectionDestinationIP:
			f.NATHere = evidence.FactOf(string(n.Data) != string(here[:]))
		case ike.NATDetectionSourceIP: // one per address that it may be sent from
			if f.NATThere != evidence.No {
				f.NATThere = evidence.FactOf(string(n.Data) != string(there[:]))
			}
		}
	}
	if a := r.conn.Local().Addr(); !a.IsValid() || a.IsUnspecified() {
		f.NATHere = evidence.Unknown
	}
}

// maxVendors and maxVendor bound what a peer can have us report, in IDs and in
// bytes of each.
const (
	maxVendors = 32
	maxVendor  = 64
)

// featuresOf is evidence.IKEFeatures with what fills it.
type featuresOf struct{ *evidence.IKEFeatures }

func (f featuresOf) addVendor(id []byte) {
	name := ike.VendorName(id)
	if f.Implementation == "" {
		f.Implementation = implementation(name)
	}
	if name == "" {
		name = hex.EncodeToString(id[:min(len(id), maxVendor)])
	}
	if len(f.VendorIDs) < maxVendors {
		f.VendorIDs = append(f.VendorIDs, name)
	}
}

// products are the implementations whose vendor IDs have a name that begins
// so. The other names are of extensions, which anybody may have.
var products = []string{
	"strongSwan", "libreswan", "Openswan", "OpenIKED", "racoon", "Shrew Soft", "Microsoft Windows", "Check Point",
	"Cisco VPN Concentrator", "Fortinet FortiGate", "Juniper NetScreen", "SonicWall", "ZyXEL ZyWALL",
}

// implementation returns what a vendor ID's name tells of who sends it, "" if
// nothing.
func implementation(name string) string {
	for _, p := range products {
		if strings.HasPrefix(name, p) {
			return name
		}
	}
	return ""
}
