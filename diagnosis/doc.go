// Package diagnosis decides, from one evidence.Snapshot, why a peer's tunnel
// does not work, or that it does, or that it cannot tell.
//
// [Evaluate] is a pure function: no clock, no network, no logger. Its rules
// are data ([Rules]): a label, a severity, a precedence, the observations
// without which the rule says nothing, and the labels that it explains. A rule
// whose label explains another's suppresses it; the report keeps what was
// suppressed.
package diagnosis
