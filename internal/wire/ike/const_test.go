package ike

import (
	"fmt"
	"testing"
)

// The numbers and names as they stand in IANA's "Internet Key Exchange
// Version 2 (IKEv2) Parameters" and "ISAKMP" registries, typed in apart from
// the constants.
func TestRegisteredNames(t *testing.T) {
	for _, tt := range []struct {
		value  fmt.Stringer
		number int
		name   string
	}{
		{IdentityProtectionV1, 2, "Identity Protection"},
		{AggressiveV1, 4, "Aggressive"},
		{InformationalV1, 5, "Informational"},
		{QuickModeV1, 32, "Quick Mode"},
		{SAInit, 34, "IKE_SA_INIT"},
		{Auth, 35, "IKE_AUTH"},
		{CreateChildSA, 36, "CREATE_CHILD_SA"},
		{Informational, 37, "INFORMATIONAL"},
		{SessionResume, 38, "IKE_SESSION_RESUME"},
		{Intermediate, 43, "IKE_INTERMEDIATE"},
		{FollowupKE, 44, "IKE_FOLLOWUP_KE"},
		{ExchangeType(99), 99, "EXCHANGE_99"},

		{NoNextPayload, 0, "NONE"},
		{PayloadSA, 33, "SA"},
		{PayloadKE, 34, "KE"},
		{PayloadNonce, 40, "NONCE"},
		{PayloadNotify, 41, "N"},
		{PayloadDelete, 42, "D"},
		{PayloadVendorID, 43, "V"},
		{PayloadEncrypted, 46, "SK"},
		{PayloadFragment, 53, "SKF"},
		{PayloadNotifyV1, 11, "N (v1)"},
		{PayloadType(99), 99, "PAYLOAD_99"},

		{ProtocolIKE, 1, "IKE"},
		{ProtocolESP, 3, "ESP"},
		{TransformEncryption, 1, "ENCR"},
		{TransformKeyExchange, 4, "KE"},
		{TransformType(99), 99, "TRANSFORM_99"},

		{UnsupportedCriticalPayload, 1, "UNSUPPORTED_CRITICAL_PAYLOAD"},
		{InvalidIKESPI, 4, "INVALID_IKE_SPI"},
		{InvalidMajorVersion, 5, "INVALID_MAJOR_VERSION"},
		{InvalidSyntax, 7, "INVALID_SYNTAX"},
		{InvalidMessageID, 9, "INVALID_MESSAGE_ID"},
		{InvalidSPI, 11, "INVALID_SPI"},
		{NoProposalChosen, 14, "NO_PROPOSAL_CHOSEN"},
		{InvalidKEPayload, 17, "INVALID_KE_PAYLOAD"},
		{AuthenticationFailed, 24, "AUTHENTICATION_FAILED"},
		{SinglePairRequired, 34, "SINGLE_PAIR_REQUIRED"},
		{NoAdditionalSAs, 35, "NO_ADDITIONAL_SAS"},
		{InternalAddressFailure, 36, "INTERNAL_ADDRESS_FAILURE"},
		{FailedCPRequired, 37, "FAILED_CP_REQUIRED"},
		{TSUnacceptable, 38, "TS_UNACCEPTABLE"},
		{InvalidSelectors, 39, "INVALID_SELECTORS"},
		{TemporaryFailure, 43, "TEMPORARY_FAILURE"},
		{ChildSANotFound, 44, "CHILD_SA_NOT_FOUND"},
		{InitialContact, 16384, "INITIAL_CONTACT"},
		{SetWindowSize, 16385, "SET_WINDOW_SIZE"},
		{NATDetectionSourceIP, 16388, "NAT_DETECTION_SOURCE_IP"},
		{NATDetectionDestinationIP, 16389, "NAT_DETECTION_DESTINATION_IP"},
		{Cookie, 16390, "COOKIE"},
		{UseTransportMode, 16391, "USE_TRANSPORT_MODE"},
		{RekeySA, 16393, "REKEY_SA"},
		{MOBIKESupported, 16396, "MOBIKE_SUPPORTED"},
		{RedirectSupported, 16406, "REDIRECT_SUPPORTED"},
		{Redirect, 16407, "REDIRECT"},
		{ChildlessSupported, 16418, "CHILDLESS_IKEV2_SUPPORTED"},
		{QuickCrashDetection, 16419, "QUICK_CRASH_DETECTION"},
		{FragmentationSupported, 16430, "IKEV2_FRAGMENTATION_SUPPORTED"},
		{SignatureHashAlgorithms, 16431, "SIGNATURE_HASH_ALGORITHMS"},
		{UsePPK, 16435, "USE_PPK"},
		{IntermediateSupported, 16438, "INTERMEDIATE_EXCHANGE_SUPPORTED"},
		{AdditionalKeyExchange, 16441, "ADDITIONAL_KEY_EXCHANGE"},
		{NotifyType(8192), 8192, "NOTIFY_8192"},

		{NotifyTypeV1(4), 4, "INVALID-COOKIE"},
		{NotifyTypeV1(14), 14, "NO-PROPOSAL-CHOSEN"},
		{NotifyTypeV1(16), 16, "PAYLOAD-MALFORMED"},
		{NotifyTypeV1(36136), 36136, "R-U-THERE"},
		{NotifyTypeV1(99), 99, "NOTIFY_99"},
	} {
		if got := tt.value.String(); got != tt.name {
			t.Errorf("%T %d is named %q, want %q", tt.value, tt.number, got, tt.name)
		}
		if got := fmt.Sprintf("%d", tt.value); got != fmt.Sprint(tt.number) {
			t.Errorf("%s is %s, want %d", tt.name, got, tt.number)
		}
	}
}

// What a peer says is not an error of ours.
func TestNotifyTypeIsNoError(t *testing.T) {
	if _, ok := any(NoProposalChosen).(error); ok {
		t.Error("NotifyType implements error")
	}
	if !NoProposalChosen.IsError() || Cookie.IsError() || NotifyType(16383).IsError() != true || InitialContact.IsError() {
		t.Error("IsError does not split the types at 16384")
	}
}

func TestVersion(t *testing.T) {
	for v, want := range map[Version]string{V1: "1.0", V2: "2.0", 0x3f: "3.15"} {
		if v.String() != want {
			t.Errorf("%#x is %q, want %q", uint8(v), v.String(), want)
		}
	}
	if V2.Major() != 2 || V2.Minor() != 0 || (SPI{}).IsZero() != true || (SPI{7: 1}).IsZero() {
		t.Error("version or SPI")
	}
}
