#!/bin/sh
# Builds, signs, packs and notarises bpfwatch for a fleet of Macs. Runs on a Mac with Xcode's command
# line tools and Rust.
#
#   export TEAM_ID=ABCDE12345 NOTARY_PROFILE=bpfwatch
#   export APP_IDENTITY='Developer ID Application: Example (ABCDE12345)'
#   export PKG_IDENTITY='Developer ID Installer: Example (ABCDE12345)'
#   macos/pkg/build.sh embedded.provisionprofile
#   macos/pkg/build.sh --ad-hoc            for a developer's own Mac; unsigned package, no notary
#
# The provisioning profile comes from Apple's developer site, for the bundle identifier and with the
# Endpoint Security entitlement. `xcrun notarytool store-credentials` makes the notary profile.
set -eu

die() { echo "$0: $1" >&2; exit 64; }

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/pkg
app=$out/root/Applications/bpfwatch.app
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
adhoc=no
profile=
case ${1:-} in
    --ad-hoc) adhoc=yes ;;
    '') die 'name the provisioning profile, or say --ad-hoc' ;;
    *)
        profile=$1
        [ -f "$profile" ] || die "no file $profile"
        : "${TEAM_ID:?the Apple team that signs}"
        : "${APP_IDENTITY:?the signing identity of the program, see security find-identity -v}"
        : "${PKG_IDENTITY:?the signing identity of the package}"
        : "${NOTARY_PROFILE:?see xcrun notarytool store-credentials}"
        ;;
esac

echo "== build both architectures"
for target in aarch64-apple-darwin x86_64-apple-darwin; do
    rustup target add "$target"
    MACOSX_DEPLOYMENT_TARGET=13.0 cargo build --release --locked --target "$target" --manifest-path "$root/Cargo.toml"
done

echo "== put the bundle together"
rm -rf "$out"
# /etc is a link to /private/etc, which a package must not replace.
rotation=$out/root/private/etc/newsyslog.d
mkdir -p "$app/Contents/MacOS" "$out/root/Library/LaunchDaemons" "$rotation"
lipo -create -output "$app/Contents/MacOS/bpfwatch" \
    "$root/target/aarch64-apple-darwin/release/bpfwatch" \
    "$root/target/x86_64-apple-darwin/release/bpfwatch"
cp "$root/macos/bundle/Info.plist" "$app/Contents/Info.plist"
plutil -replace CFBundleShortVersionString -string "$version" "$app/Contents/Info.plist"
plutil -replace CFBundleVersion -string "$version" "$app/Contents/Info.plist"
cp "$root/LaunchDaemons/io.github.bpfwatch.daemon.plist" "$out/root/Library/LaunchDaemons/"
cp "$root/macos/newsyslog.d/bpfwatch.conf" "$rotation/"

echo "== sign"
if [ "$adhoc" = yes ]; then
    codesign --force --sign - --options runtime --entitlements "$root/entitlements/adhoc.entitlements" "$app"
else
    cp "$profile" "$app/Contents/embedded.provisionprofile"
    sed "s/TEAM_ID/$TEAM_ID/g" "$root/entitlements/release.entitlements" > "$out/release.entitlements"
    codesign --force --timestamp --options runtime --sign "$APP_IDENTITY" \
        --entitlements "$out/release.entitlements" "$app"
fi
for arch in arm64 x86_64; do
    codesign --verify --strict --verbose=2 --arch "$arch" "$app"
done

echo "== pack"
chmod 755 "$here/scripts/preinstall" "$here/scripts/postinstall"
mkdir -p "$out/scripts"
cp "$here/scripts/preinstall" "$here/scripts/postinstall" "$out/scripts/"
pkgbuild --root "$out/root" --component-plist "$here/component.plist" --scripts "$out/scripts" \
    --identifier io.github.bpfwatch --version "$version" --ownership recommended \
    "$out/bpfwatch-component.pkg"
if [ "$adhoc" = yes ]; then
    productbuild --distribution "$here/distribution.xml" --package-path "$out" "$out/bpfwatch-$version.pkg"
    echo "$out/bpfwatch-$version.pkg (not signed, not notarised)"
    exit 0
fi
productbuild --distribution "$here/distribution.xml" --package-path "$out" \
    --sign "$PKG_IDENTITY" "$out/bpfwatch-$version.pkg"

echo "== notarise and staple"
xcrun notarytool submit --wait --keychain-profile "$NOTARY_PROFILE" "$out/bpfwatch-$version.pkg"
xcrun stapler staple "$out/bpfwatch-$version.pkg"
spctl --assess --type install --verbose "$out/bpfwatch-$version.pkg"
echo "$out/bpfwatch-$version.pkg"
