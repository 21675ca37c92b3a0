import Foundation

/// An authority and one certificate for 127.0.0.1 that serves as the server's and the client's, made by the openssl command.
struct TestCertificates {
    static let canMake = FileManager.default.isExecutableFile(atPath: "/usr/bin/openssl")

    private let directory: URL
    var authority: String { directory.appendingPathComponent("ca.pem").path }
    var certificate: String { directory.appendingPathComponent("cert.pem").path }
    var key: String { directory.appendingPathComponent("key.pem").path }

    struct Failed: Error {
        var command: [String]
    }

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("certs-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
            .write(to: directory.appendingPathComponent("ext"), atomically: true, encoding: .utf8)
        try openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test ca",
                    "-keyout", "ca-key.pem", "-out", "ca.pem")
        try openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=root", "-keyout", "key.pem", "-out", "req.pem")
        try openssl("x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "cert.pem")
    }

    private func openssl(_ arguments: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        process.currentDirectoryURL = directory
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        if process.terminationStatus != 0 { throw Failed(command: arguments) }
    }

    func remove() { try? FileManager.default.removeItem(at: directory) }
}
