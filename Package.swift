// swift-tools-version: 6.1
import PackageDescription

/// Folder = target = module. `Sources/ClusterCore` is a folder of targets and the name of the engine's library product.
func core(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Sources/ClusterCore/\(name)", exclude: excluded(name))
}

/// Files that live beside the code for people, not for the compiler.
func excluded(_ target: String) -> [String] {
    switch target {
    case "Raft", "Log", "Store", "Auth", "Replica", "GRPC", "BoltFile": ["DESIGN.md"]
    case "Server": ["DESIGN.md", "API/DESIGN.md"]
    case "Wire": ["Protos", "regenerate.sh"]
    default: []
    }
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, path: "Tests/\(name)", exclude: exclude)
}

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
]

let package = Package(
    name: "quarterdeck",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "quarterdeck", targets: ["quarterdeck"]),
        .library(name: "ClusterCore", targets: ["Server", "Replica", "Store", "Raft", "Log", "Base", "PosixDisk", "LMDBBackend"]),
        .library(name: "Client", targets: ["Client"]),
    ],
    traits: [
        .trait(name: "PlantedFaults", description: "Lets the simulator plant known faults in the engine, to prove that it notices them. Never for a build that serves."),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1.git", from: "1.7.4"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // MARK: ClusterCore: pure cores
        .target(name: "Base", path: "Sources/ClusterCore/Base", swiftSettings: [.define("PLANTED_FAULTS", .when(traits: ["PlantedFaults"]))]),
        core("Raft", ["Base", .product(name: "DequeModule", package: "swift-collections")]),
        core("Log", ["Base", "Raft", "CISAL"]),
        core("Store", ["Base", "CISAL", .product(name: "DequeModule", package: "swift-collections")]),
        core("BoltFile", ["Base"]),
        core("Auth", ["Base"]),
        core("Replica", ["Base", "Raft", "Log", "Store", "Auth", .product(name: "DequeModule", package: "swift-collections")]),

        // MARK: ClusterCore: the outside
        .systemLibrary(name: "CISAL", path: "Sources/ClusterCore/CISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
        .systemLibrary(name: "CCrypt", path: "Sources/ClusterCore/CCrypt", pkgConfig: "libcrypt", providers: [.apt(["libcrypt-dev"]), .brew(["libxcrypt"])]),
        .systemLibrary(name: "CLMDB", path: "Sources/ClusterCore/CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
        .systemLibrary(name: "CNghttp2", path: "Sources/ClusterCore/CNghttp2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        core("PosixDisk", ["Base", "Log"]),
        core("LMDBBackend", ["Base", "Store", "CLMDB", "CISAL"]),
        core("Wire", ["Base", .product(name: "SwiftProtobuf", package: "swift-protobuf")]),
        core("GRPC", ["Base", "CNghttp2", "CISAL"]),
        core("Server", [
            "Base", "Raft", "Log", "Store", "Auth", "BoltFile", "Replica", "Wire", "GRPC", "PosixDisk", "LMDBBackend", "CCrypt",
            .product(name: "Logging", package: "swift-log"), .product(name: "Crypto", package: "swift-crypto"),
            .product(name: "CryptoExtras", package: "swift-crypto"),
            .product(name: "NIOHTTP1", package: "swift-nio"), .product(name: "NIOWebSocket", package: "swift-nio"), .product(name: "NIOTLS", package: "swift-nio"),
            .product(name: "NIOSSL", package: "swift-nio-ssl"), .product(name: "X509", package: "swift-certificates"),
            .product(name: "SwiftASN1", package: "swift-asn1"),
        ] + nio),

        // MARK: Client
        .target(name: "Client", dependencies: ["Base", "Wire", "GRPC", .product(name: "NIOSSL", package: "swift-nio-ssl"), .product(name: "NIOTLS", package: "swift-nio"),
                                               .product(name: "Logging", package: "swift-log")] + nio, path: "Sources/Client"),

        // MARK: Console
        .target(name: "CNcurses", dependencies: ["CProcesses"], path: "Sources/Console/CNcurses", linkerSettings: [.linkedLibrary("ncursesw"), .linkedLibrary("tinfo")]),
        .target(name: "CResolver", path: "Sources/Console/CResolver", linkerSettings: [.linkedLibrary("resolv")]),
        .target(name: "CProcesses", path: "Sources/Console/CProcesses"),
        .target(name: "Processes", dependencies: ["CProcesses", .product(name: "DequeModule", package: "swift-collections")] + nio, path: "Sources/Console/Processes"),
        .target(name: "UI", path: "Sources/Console/UI", exclude: ["DESIGN.md"]),
        .executableTarget(name: "quarterdeck", dependencies: [
            "UI", "CNcurses", "CProcesses", "CResolver", "Processes", "Client", "Server", "Simulation",
            .product(name: "ArgumentParser", package: "swift-argument-parser"), .product(name: "Yams", package: "Yams"),
            .product(name: "Histogram", package: "hdrhistogram-swift"), .product(name: "Logging", package: "swift-log"),
        ] + nio, path: "Sources/Console/App"),

        // MARK: Tests
        // The simulator is a library: `quarterdeck simulate`, the small program `simulate` (no sockets: builds in a minute) and the tests share it.
        .target(name: "Simulation", dependencies: ["Auth", "Base", "Raft", "Log", "Store", "Replica", .product(name: "HeapModule", package: "swift-collections"),
                                               .product(name: "ArgumentParser", package: "swift-argument-parser")],
                path: "Tests/Simulation", swiftSettings: [.define("PLANTED_FAULTS", .when(traits: ["PlantedFaults"]))]),
        .executableTarget(name: "simulate", dependencies: ["Simulation"], path: "Tests/Simulate"),
        // Real processes under load and faults, and what their clients saw: a program, and the library of its test.
        .executableTarget(name: "torture", dependencies: [
            "Base", "Client", "Processes", "Server", "Simulation", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            .product(name: "Logging", package: "swift-log"),
        ] + nio, path: "Tests/Torture"),
        // Certificate authorities made at run time, for the tests of TLS.
        .target(name: "TestCertificates", dependencies: [
            .product(name: "X509", package: "swift-certificates"), .product(name: "SwiftASN1", package: "swift-asn1"),
            .product(name: "Crypto", package: "swift-crypto"),
        ], path: "Tests/TestCertificates"),
        // HTTP/2 frames by hand, for tests of what no client does.
        .target(name: "RawHTTP2", path: "Tests/RawHTTP2"),
        // A gRPC client that also says what no library says.
        .target(name: "RawClient", dependencies: ["Base", "GRPC", "Wire", "RawHTTP2"] + nio, path: "Tests/RawClient"),
        tests("SimulationTests", ["Auth", "Base", "Raft", "Log", "Store", "Replica", "Simulation"]),
        tests("RaftTests", ["Base", "Raft"]),
        tests("LogTests", ["Base", "Raft", "Log", "PosixDisk"]),
        tests("LMDBBackendTests", ["Base", "Store", "LMDBBackend"]),
        tests("StoreTests", ["Base", "Store"]),
        tests("BoltFileTests", ["Base", "BoltFile"]),
        tests("AuthTests", ["Base", "Auth"]),
        tests("ReplicaTests", ["Base", "Raft", "Log", "Store", "Auth", "Replica"]),
        tests("GRPCTests", ["Base", "GRPC", "Wire", "CNghttp2", "RawHTTP2"]),
        tests("ClientTests", ["quarterdeck", "Base", "GRPC", "Wire", "Client"] + nio),
        tests("ServerTests", ["Base", "Raft", "Store", "Auth", "Replica", "GRPC", "CNghttp2", "Wire", "Server", "Client", "TestCertificates", "RawClient", "RawHTTP2",
                              .product(name: "Logging", package: "swift-log"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
                              .product(name: "Crypto", package: "swift-crypto"), .product(name: "CryptoExtras", package: "swift-crypto")] + nio),
        tests("UITests", ["UI"], exclude: ["Goldens"]), // read from the source folder
        tests("TerminalTests", ["quarterdeck", "Base", "UI", "CNcurses", "Server"]),
        // Decoders of bytes from outside. The corpus is read from the source folder.
        tests("FuzzTests", ["quarterdeck", "UI", "CNcurses", "Base", "Raft", "Log", "Store", "Auth", "Replica", "GRPC", "Wire", "Server", "Client", "TestCertificates",
                            .product(name: "NIOEmbedded", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"), .product(name: "NIOHTTP1", package: "swift-nio"),
                            .product(name: "Logging", package: "swift-log"), .product(name: "ArgumentParser", package: "swift-argument-parser")] + nio,
              exclude: ["README.md", "Corpus"]),
        // Real processes: the program itself beside the test bundle, etcd and etcdctl.
        tests("IntegrationTests", ["quarterdeck", "torture", "Base", "Processes", "Wire", "GRPC", "RawClient", "RawHTTP2", "Client", "Server", "Simulation", "TestCertificates", "UI",
                                   .product(name: "Crypto", package: "swift-crypto"), .product(name: "CryptoExtras", package: "swift-crypto")] + nio),
    ],
    swiftLanguageModes: [.v6]
)
