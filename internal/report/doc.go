// Package report writes a diagnosis.Report for machines ([JSON]) and for the
// operator ([Text]), and shows the progress of a run on a terminal
// ([Progress]).
package report
