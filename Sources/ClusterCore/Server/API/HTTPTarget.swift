/// Path and query of a request line.
struct HTTPTarget {
    /// Without escapes. `/v3beta/` is read as `/v3/`.
    let path: String
    /// Of a URL instead of a path: whom it names.
    let authority: String?
    /// The path without empty and dotted parts, where that is another one.
    private let cleanPath: String?
    private let rawQuery: Substring?
    private let query: [(name: String, value: String)]

    /// nil when it is neither a path nor a URL, or has an escape that is none.
    init?(_ uri: String) {
        var rest = uri[...]
        var authority: String?
        if let scheme = rest.firstRange(of: "://"), !rest.hasPrefix("/") {
            rest = rest[scheme.upperBound...]
            authority = String(rest.prefix { $0 != "/" && $0 != "?" })
            rest = rest.firstIndex(of: "/").map { rest[$0...] } ?? "/"
        }
        let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        guard rest.hasPrefix("/") || rest == "*", let path = HTTPTarget.decode(parts[0], plusIsSpace: false) else { return nil }
        self.authority = authority
        self.path = path.hasPrefix("/v3beta/") ? "/v3/" + path.dropFirst(8) : path
        cleanPath = HTTPTarget.clean(self.path)
        rawQuery = parts.count > 1 ? parts[1] : nil
        query = parts.count < 2 ? [] : parts[1].split(separator: "&").compactMap { pair in
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = HTTPTarget.decode(sides[0], plusIsSpace: true),
                  let value = sides.count > 1 ? HTTPTarget.decode(sides[1], plusIsSpace: true) : "" else { return nil }
            return (name, value)
        }
    }

    func value(_ name: String) -> String? { query.first { $0.name == name }?.value }
    func values(_ name: String) -> [String] { query.filter { $0.name == name }.map(\.value) }
    func has(_ name: String) -> Bool { query.contains { $0.name == name } }

    // MARK: Redirection, as Go's multiplexer has it

    var needsRedirect: Bool { cleanPath != nil }

    /// Where the client is sent instead.
    var redirection: String {
        let path = cleanPath ?? self.path + "/"
        return HTTPTarget.encode(path) + (rawQuery.map { "?" + $0 } ?? "")
    }

    /// nil when it is clean.
    private static func clean(_ path: String) -> String? {
        guard path.contains("//") || path.contains("/.") else { return nil }
        var parts: [Substring] = []
        for part in path.split(separator: "/") {
            switch part {
            case ".": break
            case "..": _ = parts.popLast()
            default: parts.append(part)
            }
        }
        var clean = "/" + parts.joined(separator: "/")
        if path.hasSuffix("/"), clean != "/" { clean += "/" }
        return clean == path ? nil : clean
    }

    private static func encode(_ path: String) -> String {
        let plain = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~$&+,/:;=@".utf8)
        return path.utf8.map { byte in
            if plain.contains(byte) { return String(Unicode.Scalar(byte)) }
            let hex = String(byte, radix: 16, uppercase: true)
            return "%" + (hex.count < 2 ? "0" + hex : hex)
        }.joined()
    }

    /// nil for a percent sign without a number.
    private static func decode(_ text: Substring, plusIsSpace: Bool) -> String? {
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else { return String(text) }
        let bytes = Array(text.utf8)
        var out: [UInt8] = []
        var at = 0
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "%") {
                guard at + 2 < bytes.count, let high = JSONScanner.hexDigit(bytes[at + 1]), let low = JSONScanner.hexDigit(bytes[at + 2]) else { return nil }
                out.append(UInt8(high << 4 | low))
                at += 3
            } else {
                out.append(plusIsSpace && bytes[at] == UInt8(ascii: "+") ? 0x20 : bytes[at])
                at += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}

/// The date of an answer. (RFC 9110 §5.6.7)
enum HTTPDate {
    private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

    static func text(unixSeconds: Int64) -> String {
        let (day, second) = unixSeconds.quotientAndRemainder(dividingBy: 86_400)
        // Days of the era that begins on 1 March of year 0; a year of it ends with February, whatever its length.
        let all = day + 719_468
        let (era, ofEra) = all.quotientAndRemainder(dividingBy: 146_097)
        let year = (ofEra - ofEra / 1_460 + ofEra / 36_524 - ofEra / 146_096) / 365
        let ofYear = ofEra - (365 * year + year / 4 - year / 100)
        let march = (5 * ofYear + 2) / 153
        let month = march < 10 ? march + 3 : march - 9
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(days[Int(day % 7)]), \(two(ofYear - (153 * march + 2) / 5 + 1)) \(months[Int(month - 1)]) \(year + era * 400 + (month <= 2 ? 1 : 0)) "
            + "\(two(second / 3_600)):\(two(second / 60 % 60)):\(two(second % 60)) GMT"
    }
}
