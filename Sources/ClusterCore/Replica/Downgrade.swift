import Base

/// The cluster's wish to go back to an older minor version. It is kept as etcd keeps it, so that it comes and goes with etcd's files.
///
/// Nothing acts on it: all members of this program follow one version, so none can become the older one. A job stands until it is called off.
public struct Downgrade: Hashable, Sendable {
    /// "3.4.0"
    public var target: String
    public init(target: String) { self.target = target }

    /// In the cluster table.
    static let key = Array("downgrade".utf8)

    /// etcd's record. Without a job it stays and says so.
    static func json(_ downgrade: Downgrade?) -> [UInt8] {
        var text = JSONText()
        text.raw("{\"target-version\":")
        text.string(downgrade?.target ?? "")
        text.raw(",\"enabled\":\(downgrade != nil)}")
        return text.bytes
    }

    /// nil: the record says that there is none.
    static func decode(json bytes: [UInt8]) throws(DecodingFault) -> Downgrade? {
        let object = try JSONValue.parse(bytes)
        guard object["enabled"]?.flag == true else { return nil }
        return Downgrade(target: object["target-version"]?.text ?? "")
    }
}

/// `DowngradeRequest.DowngradeAction` of the API.
public enum DowngradeAction: UInt64, Sendable {
    case validate = 0
    case enable = 1
    case cancel = 2
}

extension Replica {
    /// The body is a DowngradeRequest whose version the API has checked: what a version may go back to is the program's knowledge, which is no part of
    /// the replicated state.
    func changeDowngrade(_ body: inout ByteReader) throws(ApplyFailure) -> [UInt8] {
        var action: UInt64 = 0
        var target: [UInt8] = []
        do {
            while let (field, type) = try body.readTag() {
                switch (field, type) {
                case (1, .varint): action = try body.readVarint()
                case (2, .lengthDelimited): target = try body.readCounted()
                default: try body.skip(type)
                }
            }
        } catch { throw .undecodable(error) }
        switch DowngradeAction(rawValue: action) {
        case .validate?:
            guard downgrade == nil else { throw .refused(.downgradeInProcess) }
        case .enable?:
            guard downgrade == nil else { throw .refused(.downgradeInProcess) }
            set(Downgrade(target: String(decoding: target, as: UTF8.self)))
        case .cancel?:
            guard downgrade != nil else { throw .refused(.noInflightDowngrade) }
            set(nil)
        case nil: throw .refused(.unknownMethod)
        }
        return headerOnly()
    }

    private func set(_ downgrade: Downgrade?) {
        self.downgrade = downgrade
        let record = Downgrade.json(downgrade)
        stateHash.fold(record)
        smallChanges.put(.cluster, Downgrade.key, record)
    }
}
