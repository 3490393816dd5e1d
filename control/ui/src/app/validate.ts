import { fileDesc } from "@bufbuild/protobuf/codegenv2";

/**
 * In the place of the generated buf/validate/validate_pb, whose descriptor is a fifth of all others' together:
 * the gateway validates, the console does not. Its options stay in the descriptors as unknown fields.
 */
export const file_buf_validate_validate = fileDesc("ChtidWYvdmFsaWRhdGUvdmFsaWRhdGUucHJvdG8SDGJ1Zi52YWxpZGF0ZQ");
