package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vpnprobe/config"
	"vpnprobe/internal/agent"
)

func probeCommand() *cobra.Command {
	var f probeFlags
	var authenticate bool
	c := &cobra.Command{
		Use:   "probe --peer NAME|ADDRESS",
		Short: "look at one peer now and say what is wrong with it",
		Long: `Look at one peer now and say what is wrong with it.

Works with no configuration at all when the peer is given by its address.
Exit status: 0 healthy, 1 a problem was diagnosed, 2 wrong usage or
configuration, 3 could not decide.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return probePeer(c, f, authenticate) },
	}
	f.register(c.Flags(), 10*time.Second)
	c.Flags().BoolVar(&authenticate, "authenticate", false, "negotiate for real, with the key of ike.psk_file (see docs/ike-probing.md)")
	return c
}

func probePeer(c *cobra.Command, f probeFlags, authenticate bool) error {
	l, err := f.prepare(c)
	if err != nil {
		return err
	}
	var psk []byte
	if authenticate {
		if psk, err = readKey(l.whom); err != nil {
			return err
		}
	}
	l.begin(c)
	r := agent.Probe(c.Context(), l.cfg, l.whom, l.duration, psk, l.env, l.sub)
	l.done()
	return l.conclude(c, r)
}

// readKey reads the pre-shared key for a negotiation for real.
func readKey(p config.Peer) ([]byte, error) {
	switch {
	case p.IKE.PSKFile == "":
		return nil, fmt.Errorf("--authenticate needs the key of peer %s: declare ike.psk_file, a file of mode 0600", p.Name)
	case p.IKE.LocalID == "" || p.IKE.RemoteID == "":
		return nil, fmt.Errorf("--authenticate needs both identities of peer %s: declare ike.local_id and ike.remote_id", p.Name)
	case len(p.IKE.Proposals) == 0 || len(p.LocalSubnets) == 0 || len(p.RemoteSubnets) == 0:
		return nil, fmt.Errorf("--authenticate needs what the tunnel of peer %s is agreed upon: declare ike.proposals, local_subnets and remote_subnets", p.Name)
	}
	return agent.ReadPSK(p.IKE.PSKFile)
}
