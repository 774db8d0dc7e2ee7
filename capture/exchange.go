package capture

// exchange is an IKE exchange type as it is counted: one of a closed set.
type exchange uint8

// exchangeNames are the keys of evidence.WireTraffic.IKE: the names of RFC 7296
// section 3.1 and its successors in the IANA registry for IKEv2, those of RFC
// 2408 section 3.1 and RFC 2409 with a prefix for IKEv1. Anything else,
// versions above 2 included, is the first.
var exchangeNames = [...]string{
	"other",
	"IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "INFORMATIONAL",
	"IKE_SESSION_RESUME", "IKE_INTERMEDIATE", "IKE_FOLLOWUP_KE",
	"IKEV1_MAIN", "IKEV1_AGGRESSIVE", "IKEV1_INFORMATIONAL", "IKEV1_TRANSACTION", "IKEV1_QUICK",
}

// exchangeOf names the exchange type of a message of a major version.
func exchangeOf(major, exchangeType uint8) exchange {
	switch {
	case major == 2 && exchangeType >= 34 && exchangeType <= 38: // IKE_SA_INIT ... IKE_SESSION_RESUME
		return exchange(exchangeType - 33)
	case major == 2 && exchangeType >= 43 && exchangeType <= 44: // RFC 9242, RFC 9370
		return exchange(exchangeType - 37)
	case major != 1:
		return 0
	}
	switch exchangeType {
	case 2:
		return 8
	case 4:
		return 9
	case 5:
		return 10
	case 6:
		return 11
	case 32:
		return 12
	}
	return 0
}
