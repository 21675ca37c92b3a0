/// Who may use the HTTP endpoints of a client port, and whether the JSON gateway is among them. (etcd-http.md §1)
public struct HTTPAccess: Hashable, Sendable {
    /// Origins whose scripts may read answers; `*`: all. (`--cors`)
    public var origins: Set<String> = ["*"]
    /// Host names by which this server may be called without TLS; `*`: any. (`--host-whitelist`)
    public var hosts: Set<String> = ["*"]
    /// (`--enable-grpc-gateway`)
    public var servesGateway = true

    public init() {}

    /// What CORS answers to an origin; nil: nothing, and the browser keeps the answer from the script.
    func allowedOrigin(_ origin: String) -> String? {
        if origins.isEmpty || origins.contains("*") { return "*" }
        return origins.contains(origin) ? origin : nil
    }

    func allows(host: String) -> Bool { hosts.isEmpty || hosts.contains("*") || hosts.contains(host) }

    /// The name without its port; as it stands where it has none, or is no address at all, as Go splits it.
    static func hostname(_ authority: String) -> String {
        guard let colon = authority.lastIndex(of: ":") else { return authority }
        var name = authority[..<colon]
        let isBracketed = name.hasPrefix("[")
        if isBracketed {
            guard name.hasSuffix("]"), name.count > 1 else { return authority }
            name = name.dropFirst().dropLast()
        }
        guard !name.contains("["), !name.contains("]"), isBracketed || !name.contains(":") else { return authority }
        return String(name)
    }

    /// Whether Go's server would take this for a host at all. What it lets through needs no escapes in a text.
    static func isHost(_ text: String) -> Bool {
        text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: marks.contains(byte)
            }
        }
    }

    private static let marks = Set("!$%&'()*+,-.:;=[]_~".utf8)

    /// etcd's words to who calls this server by a name that it does not go by.
    static func refusal(of host: String) -> String {
        """

        etcd received your request, but the Host header was unrecognized.

        To fix this, choose one of the following options:
        - Enable TLS, then any HTTPS request will be allowed.
        - Add the hostname you want to use to the whitelist in settings.
          - e.g. etcd --host-whitelist "\(host)"

        This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).


        """
    }
}
