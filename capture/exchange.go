package capture

import (
	"slices"

	"vpnprobe/internal/wire/ike"
)

// exchange is an IKE exchange type as it is counted: an index into exchanges.
type exchange uint8

// exchanges are the types that are counted apart from each other. The first
// stands for all others: a set that is closed makes names fit for labels.
var exchanges = [...]ike.ExchangeType{
	0,
	ike.SAInit, ike.Auth, ike.CreateChildSA, ike.Informational,
	ike.SessionResume, ike.Intermediate, ike.FollowupKE,
	ike.IdentityProtectionV1, ike.AggressiveV1, ike.InformationalV1, ike.TransactionV1, ike.QuickModeV1,
}

// exchangeOf classifies the exchange type of a message of a major version.
func exchangeOf(major uint8, typ ike.ExchangeType) exchange {
	if major == 1 && typ < ike.SAInit || major == 2 && typ >= ike.SAInit {
		return exchange(1 + slices.Index(exchanges[1:], typ))
	}
	return 0 // a version that is not, or an exchange that it does not have
}

// String returns the key of evidence.WireTraffic.IKE.
func (x exchange) String() string {
	if x == 0 {
		return "other"
	}
	return exchanges[x].String()
}
