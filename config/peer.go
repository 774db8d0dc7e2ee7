package config

import (
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"
)

// peer decodes one peer. It starts from the settings of c.
func (d *decoder) peer(c *Config, v value) Peer {
	p := c.NewPeer("", "")
	d.mapping(v, fields{
		"name":           scalar(d, &p.Name, parseName),
		"gateway":        scalar(d, &p.Gateway, parseGateway),
		"source":         scalar(d, &p.Source, parseAddr),
		"interface":      scalar(d, &p.Interface, parseInterfaceName),
		"ike":            func(v value) { d.ike(&p.IKE, v) },
		"esp":            func(v value) { d.esp(&p.ESP, v) },
		"local_subnets":  list(d, &p.LocalSubnets, parseSubnet),
		"remote_subnets": list(d, &p.RemoteSubnets, parseSubnet),
		"inner":          func(v value) { d.inner(&p.Inner, v) },
		"bandwidth":      scalar(d, &p.Bandwidth, parseBandwidth),
		"logs":           func(v value) { d.logs(&p.Logs, v) },
		"vendor":         scalar(d, &p.Vendor, oneOf(Vendors()...)),
		"icmp": func(v value) {
			d.mapping(v, fields{
				"interval": scalar(d, &p.ICMP.Interval, parseICMPInterval),
				"timeout":  scalar(d, &p.ICMP.Timeout, parseICMPTimeout),
				"size":     scalar(d, &p.ICMP.Size, parseICMPSize),
			})
		},
		"thresholds": func(v value) {
			d.mapping(v, fields{
				"loss": scalar(d, &p.Thresholds.Loss, parseRatio),
				"rtt":  scalar(d, &p.Thresholds.RTT, parseRTT),
			})
		},
	})
	d.require(v, "name", "gateway")
	if gateway, err := netip.ParseAddr(p.Gateway); err == nil {
		d.sameFamily(v.path+".source", p.Source, "the gateway", gateway)
	}
	return p
}

func (d *decoder) ike(ike *IKE, v value) {
	d.mapping(v, fields{
		"version":   scalar(d, &ike.Version, integer(1, 2)),
		"mode":      scalar(d, &ike.Mode, oneOf("main", "aggressive")),
		"proposals": list(d, &ike.Proposals, parseIKEProposal),
		"local_id":  scalar(d, &ike.LocalID, parseIdentity),
		"remote_id": scalar(d, &ike.RemoteID, parseIdentity),
		"psk_file":  scalar(d, &ike.PSKFile, parsePath),
		"lifetime":  scalar(d, &ike.Lifetime, parseLifetime),
		"dpd_delay": scalar(d, &ike.DPDDelay, parseDPDDelay),
	})
	if ike.Mode != "" && ike.Version != 1 {
		d.faultf(v.path+".mode", "only IKE version 1 has modes: declare version: 1 or remove mode")
	}
}

func (d *decoder) esp(esp *ESP, v value) {
	d.mapping(v, fields{
		"proposals":     list(d, &esp.Proposals, parseESPProposal),
		"mode":          scalar(d, &esp.Mode, oneOf("tunnel", "transport")),
		"encapsulation": scalar(d, &esp.Encapsulation, oneOf("udp", "none")),
		"lifetime":      scalar(d, &esp.Lifetime, parseLifetime),
	})
}

func (d *decoder) inner(dst *[]Inner, v value) {
	type pair struct{ address, source netip.Addr }
	first := make(map[pair]int)
	d.sequence(v, func(i int, v value) {
		var in Inner
		d.mapping(v, fields{
			"address":   scalar(d, &in.Address, parseAddr),
			"source":    scalar(d, &in.Source, parseAddr),
			"tcp_ports": list(d, &in.TCPPorts, parsePort),
		})
		d.require(v, "address")
		d.sameFamily(v.path+".source", in.Source, "the inner address", in.Address)
		key := pair{in.Address, in.Source}
		if j, ok := first[key]; ok && in.Address.IsValid() {
			d.faultf(v.path, "has the address and source of entry [%d]: make them one", j)
		} else {
			first[key] = i
		}
		*dst = append(*dst, in)
	})
}

func (d *decoder) logs(dst *[]Log, v value) {
	d.sequence(v, func(_ int, v value) {
		var log Log
		d.mapping(v, fields{
			"path":    scalar(d, &log.Path, parsePath),
			"journal": scalar(d, &log.Journal, parseUnit),
		})
		_, path := d.lines[v.path+".path"]
		_, journal := d.lines[v.path+".journal"]
		switch {
		case v.Kind != yaml.MappingNode: // said already
		case path == journal:
			d.faultf(v.path, "want either path or journal")
		case log != (Log{}) && slices.Contains(*dst, log):
			d.faultf(v.path, "is listed already: remove one")
		}
		*dst = append(*dst, log)
	})
}

// require notes the keys that a mapping must hold and does not.
func (d *decoder) require(v value, keys ...string) {
	if v.Kind != yaml.MappingNode {
		return // said already
	}
	for _, key := range keys {
		if _, ok := d.lines[join(v.path, key)]; !ok {
			d.faultf(join(v.path, key), "is missing")
		}
	}
}

// sameFamily notes a source that cannot send to the address it is for.
func (d *decoder) sameFamily(path string, source netip.Addr, what string, address netip.Addr) {
	if source.IsValid() && address.IsValid() && source.Is4() != address.Is4() {
		d.faultf(path, "%s is not of the same IP version as %s %s", source, what, address)
	}
}

// contradictions notes what is wrong between values that are right one by one.
func (d *decoder) contradictions(c *Config) {
	names, gateways := make(map[string]int), make(map[[2]string]int)
	for i, p := range c.Peers {
		path := fmt.Sprintf("peers[%d]", i)
		if j, ok := names[p.Name]; ok && p.Name != "" {
			d.faultf(path+".name", "%q is the name of peers[%d] already", p.Name, j)
		} else {
			names[p.Name] = i
		}
		key := [2]string{p.Gateway, addrKey(p.Source)}
		if j, ok := gateways[key]; ok && p.Gateway != "" {
			d.faultf(path+".gateway", "%s from the same source is peers[%d] already: make them one, or give each its source", p.Gateway, j)
		} else {
			gateways[key] = i
		}
	}
	for i, r := range c.References {
		for j, p := range c.Peers {
			if p.Gateway == r.String() {
				d.faultf(fmt.Sprintf("references[%d]", i), "%s is the gateway of peers[%d]: a reference must be someone else", r, j)
			}
		}
	}
}
