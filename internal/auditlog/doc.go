// Package auditlog reads and bounds the audit records of calls.
//
// Each account has one subject per class of records, so that records of one class or account
// cannot displace those of another. Package audit of the gateway writes them.
package auditlog
