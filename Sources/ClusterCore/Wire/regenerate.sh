#!/bin/sh
# Generates Generated/*.pb.swift from Protos/*.proto. The result is committed, so that building needs no protoc.
#
# Needs protoc (Debian: protobuf-compiler) and protoc-gen-swift of the swift-protobuf release that Package.swift names:
#   git clone --branch 1.39.0 https://github.com/apple/swift-protobuf
#   swift build --package-path swift-protobuf --product protoc-gen-swift
# Usage: PROTOC_GEN_SWIFT=path/to/protoc-gen-swift ./regenerate.sh
set -eu
cd "$(dirname "$0")"
plugin=${PROTOC_GEN_SWIFT:-$(command -v protoc-gen-swift)}
rm -f Generated/*.pb.swift
protoc --plugin=protoc-gen-swift="$plugin" --proto_path=Protos \
    --swift_out=Generated --swift_opt=Visibility=Public --swift_opt=FileNaming=DropPath Protos/*.proto
