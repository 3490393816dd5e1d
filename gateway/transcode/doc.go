// Package transcode turns protobuf wire bytes into JSON text and back, straight
// from one to the other: a [Program] is compiled once per message descriptor
// and then walks the bytes, without message objects or reflection and without
// allocating in steady state.
//
// What it promises: the ProtoJSON mapping, with the acceptance and the output
// of protobuf's own protojson (but for the order of members and white space).
// Unknown JSON members are refused, unknown wire fields left out. Depth is
// bounded.
//
// What it leaves to protojson: google.protobuf.Any, whose content is only known
// at run time; messages with groups, extensions or required fields; and wire
// bytes that no encoder of today writes (a field in pieces, a singular field
// twice). Those are right, only slower.
//
// Source: https://protobuf.dev/programming-guides/json/.
package transcode
