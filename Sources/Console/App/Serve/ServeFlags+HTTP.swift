import Foundation
import Server

extension ServeFlags {
    static let http = ServeFlagGroup(title: "HTTP", flags: [
        ServeFlag("listen-client-http-urls", .urls, "", "Where the HTTP endpoints are served; --listen-client-urls is for gRPC alone then."),
        ServeFlag("enable-grpc-gateway", .truth, "true", "Serve the JSON gateway."),
        ServeFlag("cors", .list, "*", "Origins whose scripts may read answers, separated by commas; * for all."),
        ServeFlag("host-whitelist", .list, "*", "Host names by which HTTP clients without TLS may call this server; * for any."),
    ])
}

extension HTTPAccess {
    init(_ settings: ServeSettings) throws(CommandFailure) {
        self.init()
        servesGateway = settings.truth("enable-grpc-gateway")
        if settings.text("cors") != "*" {
            let origins = settings.text("cors").split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
            if let stranger = origins.first(where: { !HTTPAccess.isOrigin($0) }) {
                throw CommandFailure(description: "--cors: \"\(stranger)\" is no origin: write it as a browser sends it, http://HOST or https://HOST:PORT, or * alone for all",
                                     status: 64)
            }
            self.origins = Set(origins)
        }
        // An empty name in the list is one: that of a request without.
        hosts = Set(settings.text("host-whitelist").split(separator: ",", omittingEmptySubsequences: false).map(String.init))
    }

    private static func isOrigin(_ text: String) -> Bool {
        guard let scheme = ["http://", "https://"].first(where: { text.hasPrefix($0) }) else { return false }
        let host = text.dropFirst(scheme.count)
        return !host.isEmpty && !host.contains("/")
    }
}
