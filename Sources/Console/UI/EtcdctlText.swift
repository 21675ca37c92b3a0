/// The etcdctl line that does what the console does, quoted for a shell: it teaches, and it can be copied.
public enum EtcdctlText {
    /// Longer values are not worth a line.
    private static let valueLimitBytes = 120
    private static let keyLimit = 3

    /// nil for what is not a call to the cluster's API. What a line alone cannot say (a guard) follows as a comment.
    public static func line(_ command: Command) -> String? {
        switch command {
        case .put(_, let key, let value, let lease, let guarded): "etcdctl \(put(key, value, lease))" + comment(guarded)
        case .delete(_, let key, let guarded): "etcdctl \(delete([], key))" + comment(guarded)
        case .rename(_, let from, let to, let value, let lease, let modRevision):
            "etcdctl \(put(to, value, lease)) && etcdctl \(delete([], from))  # one transaction, if mod_revision is \(modRevision) and the new key does not exist"
        case .deleteKeys(_, let keys): list(keys.map { delete([], $0.key) }) + "  # each if unchanged"
        case .deletePrefix(_, let prefix, _): "etcdctl \(delete(["--prefix"], prefix))"
        case .restore(_, let keys): list(keys.map { put($0.key, $0.value, $0.summary.lease) }) + "  # each if it does not exist"
        case .transferLeadership(_, let member): "etcdctl move-leader \(String(member, radix: 16))"
        default: nil
        }
    }

    /// One word of a shell's command line.
    public static func quoted(_ bytes: [UInt8]) -> String {
        if Format.isText(bytes), !bytes.contains(UInt8(ascii: "'")), !bytes.contains(0x0a) { return "'" + String(decoding: bytes, as: UTF8.self) + "'" }
        return "$'" + bytes.map { byte in
            let isPlain = byte >= 0x20 && byte < 0x7f && byte != UInt8(ascii: "'") && byte != UInt8(ascii: "\\")
            return isPlain ? String(Character(Unicode.Scalar(byte))) : "\\x" + Format.hexByte(byte)
        }.joined() + "'"
    }

    private static func put(_ key: KeyBytes, _ value: [UInt8], _ lease: UInt64) -> String {
        let flags = lease == 0 ? [] : ["--lease=\(String(lease, radix: 16))"]
        // A word cannot hold a zero byte.
        guard value.count <= valueLimitBytes, !value.contains(0) else { return words("put", flags, [key.bytes]) + " < VALUE  # \(Format.bytes(value.count))" }
        return words("put", flags, [key.bytes, value])
    }

    private static func delete(_ flags: [String], _ key: KeyBytes) -> String { words("del", flags, [key.bytes]) }

    private static func words(_ verb: String, _ flags: [String], _ arguments: [[UInt8]]) -> String {
        // What begins like a flag is none.
        let end = arguments.contains { $0.first == UInt8(ascii: "-") } ? ["--"] : []
        return ([verb] + flags + end + arguments.map(quoted)).joined(separator: " ")
    }

    private static func list(_ lines: [String]) -> String {
        let shown = lines.prefix(keyLimit).map { "etcdctl \($0)" }.joined(separator: "; ")
        return lines.count > keyLimit ? "\(shown); … \(lines.count - keyLimit) more" : shown
    }

    private static func comment(_ guarded: Expectation) -> String {
        switch guarded {
        case .modRevision(let revision): "  # if mod_revision is \(revision)"
        case .absent: "  # if it does not exist"
        case .none: ""
        }
    }
}
