import Foundation

/// A real etcd of one member on free ports, in a directory of its own.
final class RealEtcd: @unchecked Sendable {
    // Sendable because it is only started and stopped, by one test at a time.
    let endpoint: String
    private var process = Process()
    private let directory: URL

    enum Release: String, CaseIterable, Sendable {
        case v3_5 = "3.5"
        case v3_4 = "3.4"

        /// nil: not here.
        var binary: String? {
            switch self {
            case .v3_5: RealEtcd.binary
            case .v3_4:
                [ProcessInfo.processInfo.environment["QUARTERDECK_ETCD_34"] ?? "",
                 URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../.tools/etcd-3.4/usr/bin/etcd").standardized.path]
                    .first { FileManager.default.isExecutableFile(atPath: $0) }
            }
        }

        /// Those that are here, and all where the absence of one would hide a failure.
        static let wanted = allCases.filter { $0.binary != nil || ProcessInfo.processInfo.environment["CI"] == "true" }
    }

    /// The binary of 3.5: QUARTERDECK_ETCD, or `etcd` on the PATH.
    static let binary: String? = {
        let environment = ProcessInfo.processInfo.environment
        if let path = environment["QUARTERDECK_ETCD"], !path.isEmpty { return path }
        for directory in (environment["PATH"] ?? "").split(separator: ":") {
            let path = "\(directory)/etcd"
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        return nil
    }()

    /// Servers to test instead of binaries.
    static let given: [String]? = ProcessInfo.processInfo.environment["QUARTERDECK_TEST_ENDPOINTS"]
        .map { $0.split(separator: ",").map(String.init) }

    struct Missing: Error { var release: Release }

    init(_ release: Release, clientPort: Int, peerPort: Int, tls: (cert: String, key: String, ca: String)? = nil) throws {
        guard let binary = release.binary else { throw Missing(release: release) }
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("etcd-\(UUID().uuidString)")
        let scheme = tls == nil ? "http" : "https"
        endpoint = "\(scheme)://127.0.0.1:\(clientPort)"
        process.executableURL = URL(fileURLWithPath: binary)
        var arguments = [
            "--name", "one", "--data-dir", directory.path, "--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
            "--listen-peer-urls", "http://127.0.0.1:\(peerPort)", "--initial-advertise-peer-urls", "http://127.0.0.1:\(peerPort)",
            "--initial-cluster", "one=http://127.0.0.1:\(peerPort)", "--log-level", "error", "--unsafe-no-fsync",
        ]
        if let tls {
            arguments += ["--cert-file", tls.cert, "--key-file", tls.key, "--trusted-ca-file", tls.ca, "--client-cert-auth"]
        }
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
    }

    /// Kills the server and starts it again on the same data.
    func restart() throws {
        let next = Process()
        next.executableURL = process.executableURL
        next.arguments = process.arguments
        next.standardOutput = FileHandle.nullDevice
        next.standardError = FileHandle.nullDevice
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        try next.run()
        process = next
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: directory)
    }
}
