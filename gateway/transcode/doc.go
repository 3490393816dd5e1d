// Package transcode converts protobuf wire bytes to JSON and back. A [Program] is compiled once per
// message descriptor. It converts the bytes directly, without message objects or reflection, and
// does not allocate in steady state.
//
// It guarantees the ProtoJSON mapping: it accepts and writes what protobuf's protojson accepts and
// writes, except for the order of members and white space. Unknown JSON members are rejected,
// unknown wire fields dropped. Depth is bounded.
//
// It delegates rare cases to protojson: google.protobuf.Any, whose content is known only at run
// time; messages with groups, extensions or required fields; and wire bytes that current encoders
// do
// not write (a message field in pieces, a singular field twice). Those are correct, but slower.
//
// Source: https://protobuf.dev/programming-guides/json/.
package transcode
