// Package natsserver runs a NATS server with JetStream in this process, for a single node.
//
// The server restarts automatically once its disk has room again, and one process uses a directory
// at a time. Run notices a directory that has disappeared.
package natsserver
