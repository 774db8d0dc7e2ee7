package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// resolve sends the gateway's address, and again whenever it changes. A
// gateway that keeps the address it had keeps it, whatever else its name
// resolves to.
func (p *peer) resolve(ctx context.Context, out chan<- netip.Addr) error {
	var current netip.Addr
	said := ""
	for {
		list, err := lookUp(ctx, p.cfg.Gateway, p.cfg.Source)
		if ctx.Err() != nil {
			return nil
		}
		wait := p.pace.resolve
		if err != nil {
			p.state.setAddresses(nil, err.Error())
			if said != err.Error() {
				said = err.Error()
				p.log.Warn("the gateway's name does not resolve", "gateway", p.cfg.Gateway, "err", err)
			}
			wait = min(wait, p.pace.beat)
		} else {
			said = ""
			p.state.setAddresses(list, "")
			if !slices.Contains(list, current) {
				current = list[0]
				select {
				case out <- current:
				case <-ctx.Done():
					return nil
				}
			}
		}
		if _, err := netip.ParseAddr(p.cfg.Gateway); err == nil {
			<-ctx.Done() // an address never changes
			return nil
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// lookUp resolves a gateway to addresses, those of source's family only.
func lookUp(ctx context.Context, gateway string, source netip.Addr) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(gateway); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", gateway)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return nil, errors.New(dns.Err)
		}
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if a = a.Unmap(); !source.IsValid() || a.Is4() == source.Unmap().Is4() {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no address of the family of source %v", source)
	}
	return out, nil
}
