import Base
import Replica
import Wire

extension ClientLoop {
    /// A permitted Downgrade call. Also VALIDATE goes through the log: its verdict is of a moment at which this member has everything. (§8.9)
    func downgrade(_ request: PBDowngradeRequest, _ place: Int) {
        guard let action = DowngradeAction(rawValue: UInt64(truncatingIfNeeded: request.action.rawValue)) else { return fail(place, .unknownMethod) }
        var target = ""
        if action != .cancel {
            guard let version = ServerVersion.minor(of: request.version) else { return fail(place, .wrongDowngradeVersionFormat) }
            guard version == ServerVersion.downgradeTarget else { return fail(place, .invalidDowngradeTargetVersion) }
            target = version
        }
        var body = ByteWriter(capacity: 16)
        body.writeField(1, action.rawValue)
        body.writeField(2, Array(target.utf8))
        var version = ByteWriter(capacity: 8)
        version.writeField(2, Array(ServerVersion.cluster.utf8))
        setWork(place, .answeredWith(version.bytes))
        ask(place, .propose(.downgrade, body: body.bytes, cost: 0))
    }
}

extension ServerVersion {
    /// "3.4" or "3.4.7", the latter also with "-PRERELEASE" and "+METADATA", to "3.4.0"; nil for anything else. (etcd)
    static func minor(of text: String) -> String? {
        func parts(_ text: String) -> [Int64]? {
            // Metadata begins at the first plus, a prerelease at the first minus before it.
            let plain = text.split(separator: "+", maxSplits: 1, omittingEmptySubsequences: false)[0]
                .split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)[0]
            let numbers = plain.split(separator: ".", omittingEmptySubsequences: false)
            guard numbers.count == 3 else { return nil }
            var parts: [Int64] = []
            for number in numbers {
                guard !number.isEmpty, number.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let part = Int64(number) else { return nil }
                parts.append(part)
            }
            return parts
        }
        guard let parts = parts(text) ?? parts(text + ".0") else { return nil }
        return "\(parts[0]).\(parts[1]).0"
    }
}
