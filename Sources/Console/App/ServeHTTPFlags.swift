import ArgumentParser
import Foundation
import Server

/// etcd's flags for the HTTP endpoints of the client port.
struct ServeHTTPFlags: ParsableArguments {
    @Option(name: .customLong("listen-client-http-urls"), help: "Where the HTTP endpoints are served; --listen-client-urls is for gRPC alone then.") var listenURLs: String?
    @Option(name: .customLong("enable-grpc-gateway"), help: "Serve the JSON gateway. (default: true)") var gateway: String?
    @Option(name: .customLong("cors"), help: "Origins whose scripts may read answers, separated by commas; * for all. (default: *)") var cors: String?
    @Option(name: .customLong("host-whitelist"), help: "Host names by which HTTP clients without TLS may call this server; * for any. (default: *)") var hostWhitelist: String?

    /// They stand for true when they have no value.
    static let switches: Set<String> = ["--enable-grpc-gateway"]

    /// Options over environment over defaults.
    func settings(environment: [String: String]) throws(CommandFailure) -> (urls: [ServiceURL], access: HTTPAccess) {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        func value(_ option: String?, _ flag: String) -> String? { option ?? environment[ServeConfigFile.variable(flag)].flatMap { $0.isEmpty ? nil : $0 } }
        var urls: [ServiceURL] = []
        for part in (value(listenURLs, "listen-client-http-urls") ?? "").split(separator: ",") {
            do { urls.append(try ServiceURL(parsing: part.trimmingCharacters(in: .whitespaces))) } catch { throw wrong("--listen-client-http-urls: \(error.description)") }
        }
        var access = HTTPAccess()
        switch value(gateway, "enable-grpc-gateway") {
        case nil, "true"?, "1"?, "t"?, "T"?, "TRUE"?, "True"?: break
        case "false"?, "0"?, "f"?, "F"?, "FALSE"?, "False"?: access.servesGateway = false
        case let text?: throw wrong("--enable-grpc-gateway \(text): expected true or false")
        }
        if let text = value(cors, "cors"), text != "*" {
            let origins = text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
            if let stranger = origins.first(where: { !ServeHTTPFlags.isOrigin($0) }) {
                throw wrong("--cors: \"\(stranger)\" is no origin: write it as a browser sends it, http://HOST or https://HOST:PORT, or * alone for all")
            }
            access.origins = Set(origins)
        }
        // An empty name in the list is one: that of a request without.
        if let text = value(hostWhitelist, "host-whitelist") { access.hosts = Set(text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)) }
        return (urls, access)
    }

    private static func isOrigin(_ text: String) -> Bool {
        guard let scheme = ["http://", "https://"].first(where: { text.hasPrefix($0) }) else { return false }
        let host = text.dropFirst(scheme.count)
        return !host.isEmpty && !host.contains("/")
    }
}
